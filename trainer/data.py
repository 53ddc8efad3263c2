"""The dataset as blocks of tokens, in an order that depends on the seed and on nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator

from run import TrainingError
from storage import Storage

# A byte is a token. The end of a document and the filling of a last block are tokens of their own.
END_OF_TEXT = 256
PADDING = 257
VOCABULARY = 258

ROW_FILES = (".jsonl", ".json")


def read_texts(storage: Storage, uri: str, field: str) -> Iterator[str]:
    """The texts of a dataset: one JSONL file, or all of them beneath a prefix (trailing slash)."""
    for file in _files(storage, uri):
        for number, line in enumerate(storage.read(file).splitlines(), start=1):
            if line.strip():
                yield _text(file, number, line, field)


def blocks(texts: Iterator[str], length: int) -> list[list[int]]:
    """The texts one after the other, cut into blocks of `length` tokens and the one that follows.

    The last block is filled with padding, so that a dataset of any size trains.
    """
    tokens: list[int] = []
    for text in texts:
        tokens.extend(text.encode())
        tokens.append(END_OF_TEXT)
    count = max(1, -(-(len(tokens) - 1) // length))
    tokens.extend([PADDING] * (count * length + 1 - len(tokens)))
    return [tokens[at * length : (at + 1) * length + 1] for at in range(count)]


def _files(storage: Storage, uri: str) -> list[str]:
    if not uri.endswith("/"):
        if not storage.exists(uri):
            raise TrainingError(
                f"dataset {uri} does not exist; a prefix of many files ends with a slash"
            )
        return [uri]
    names = [name for name in storage.names(uri) if name.endswith(ROW_FILES)]
    if not names:
        raise TrainingError(f"dataset {uri} holds no {' or '.join(ROW_FILES)} file")
    return [uri + name for name in names]


def _text(file: str, number: int, line: bytes, field: str) -> str:
    place = f"dataset {file}, line {number}"
    try:
        row = json.loads(line)
    except ValueError as error:
        raise TrainingError(f"{place}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise TrainingError(f"{place}: expected an object such as {{{field!r}: ...}}")
    text = row.get(field)
    if not isinstance(text, str):
        fields = ", ".join(sorted(row)) or "none"
        raise TrainingError(
            f"{place}: no text in the field {field!r}; its fields: {fields} "
            f"(dataset_text_field names another)"
        )
    return text
