"""The dataset as sequences of tokens, the same on any number of processes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import distributed

import dataset
from formats import Place
from run import Run, TrainingError
from storage import Storage
from tokens import Tokenizer

Tokens = NDArray[numpy.int32]

# Tokens that processes hand to each other at once.
CHUNK = 1 << 22
# One of this many sequences is used for evaluation, if a job evaluates.
HELD_OUT = 10


class Sequences:
    """Sequences of one length, cut from one row of tokens."""

    def __init__(self, tokens: Tokens, width: int, stride: int, at: Sequence[int]) -> None:
        self._tokens, self._width, self._stride, self._at = tokens, width, stride, at

    def __len__(self) -> int:
        return len(self._at)

    def __getitem__(self, index: int) -> Tokens:
        begin = self._at[index] * self._stride
        return numpy.asarray(self._tokens[begin : begin + self._width])

    def split(self, uri: str) -> tuple[Sequences, Sequences]:
        """What is trained on, and every tenth sequence, which is kept for evaluation."""
        if len(self) < HELD_OUT:
            raise TrainingError(
                f"dataset {uri} has {len(self)} sequences: an evaluation keeps one of {HELD_OUT}, "
                f"so leave eval_steps and eval_strategy out or give more data"
            )
        kept = set(self._at[HELD_OUT - 1 :: HELD_OUT])
        parts = ([at for at in self._at if at not in kept], sorted(kept))
        train, held = (Sequences(self._tokens, self._width, self._stride, at) for at in parts)
        return train, held


@dataclass(frozen=True)
class Reader:
    """What makes tokens of a row, with its end, and the only column that it reads, if one."""

    encode: Callable[[Place, dict[str, Any]], list[int]]
    only: str | None


def text_reader(tokenizer: Tokenizer, field: str) -> Reader:
    """Reads the text in a field."""

    def encode(place: Place, row: dict[str, Any]) -> list[int]:
        return [*tokenizer.encode(dataset.text_of(place, row, field)), tokenizer.end]

    return Reader(encode, field)


def read(
    run: Run, storage: Storage, tokenizer: Tokenizer, reader: Reader, layout: Layout
) -> Sequences:
    """The whole dataset. Each process reads and tokenizes its share; then all have all of it."""
    own = share(run, storage, tokenizer, reader, layout)
    tokens = exchange(run, own)
    return layout.sequences(tokens, tokenizer, run.dataset_uri)


def share(
    run: Run, storage: Storage, tokenizer: Tokenizer, reader: Reader, layout: Layout
) -> Tokens:
    """The tokens of one process's share of the dataset."""
    found = rows(run, storage, reader.only)
    parts = [layout.lay_ended(reader.encode(place, row), tokenizer) for place, row in found]
    return numpy.concatenate(parts) if parts else numpy.empty(0, numpy.int32)


def texts(run: Run, storage: Storage, field: str) -> Iterator[str]:
    """The texts of this process's share."""
    for place, row in rows(run, storage, field):
        yield dataset.text_of(place, row, field)


def rows(
    run: Run, storage: Storage, only: str | None = None
) -> Iterator[tuple[Place, dict[str, Any]]]:
    """The rows of this process's share, with their places."""
    files = dataset.find(storage, run.dataset_uri)
    for part in dataset.shares(files, run.rank, run.world_size):
        yield from dataset.rows(storage, part, only)


def gather_rows(run: Run, own: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What all processes have read, in order, on each of them."""
    shares: list[Any] = [own]
    if run.world_size > 1:
        shares = [None] * run.world_size
        distributed.all_gather_object(shares, own)
    rows = [row for share in shares for row in share]
    if not rows:
        raise no_rows(run.dataset_uri)
    return rows


def no_rows(uri: str) -> TrainingError:
    """The error for a dataset without a row."""
    return TrainingError(f"dataset {uri} holds no rows: nothing to train on; add rows")


def learned_tokens(sequences: Tokens, padding: int) -> int:
    """The tokens of sequences that are predicted and count: neither padding nor read only."""
    targets = sequences[..., 1:]
    return int(((targets != padding) & (targets >= 0)).sum())


class Counts:
    """How many tokens of each sequence count, each counted once.

    Every process has all sequences, so that none has to ask the others what a step holds.
    """

    def __init__(self, sequences: Sequences, padding: int) -> None:
        self._sequences, self._padding = sequences, padding
        self._known: dict[int, int] = {}

    def of(self, places: list[int]) -> int:
        """The tokens of some sequences that count."""
        return sum(self._of_one(place) for place in places)

    def _of_one(self, place: int) -> int:
        if place not in self._known:
            self._known[place] = learned_tokens(self._sequences[place], self._padding)
        return self._known[place]


@lru_cache(maxsize=2)
def shuffled(count: int, key: str) -> list[int]:
    """The numbers up to a count in an order that a key decides."""
    order = list(range(count))
    random.Random(key).shuffle(order)
    return order


class Layout:
    """How texts become sequences of `length` tokens: one after the other, or each its own.

    `ahead` tokens of the next sequence stand behind each, for who predicts the token that follows.
    """

    def __init__(self, length: int, ahead: int, *, packing: bool) -> None:
        self.length, self.ahead, self.packing = length, ahead, packing

    def lay(self, text: list[int], tokenizer: Tokenizer) -> Tokens:
        """The tokens of one text, ended, and filled up where it stands alone."""
        return self.lay_ended([*text, tokenizer.end], tokenizer)

    def lay_ended(self, text: list[int], tokenizer: Tokenizer) -> Tokens:
        """The tokens of one text that has its end, filled up where it stands alone."""
        tokens = numpy.array(text, dtype=numpy.int32)
        return tokens if self.packing else self._filled(tokens, tokenizer)

    def sequences(self, tokens: Tokens, tokenizer: Tokenizer, uri: str) -> Sequences:
        """All sequences; the last one is filled up, so that a dataset of any size trains."""
        if len(tokens) == 0:
            raise no_rows(uri)
        if self.packing:
            tokens = _whole(tokens, self._count(len(tokens)) * self.length + self.ahead, tokenizer)
            return Sequences(tokens, self._width, self.length, range(self._count(len(tokens))))
        return Sequences(tokens, self._width, self._width, range(len(tokens) // self._width))

    @property
    def _width(self) -> int:
        return self.length + self.ahead

    def _count(self, tokens: int) -> int:
        return max(1, -(-(tokens - self.ahead) // self.length))

    def _filled(self, tokens: Tokens, tokenizer: Tokenizer) -> Tokens:
        """A text by itself: cut into sequences, each of which repeats the last tokens before it."""
        count = self._count(len(tokens))
        filled = _whole(tokens, count * self.length + self.ahead, tokenizer)
        cut = [filled[at * self.length :][: self._width] for at in range(count)]
        return numpy.concatenate(cut)


def _whole(tokens: Tokens, length: int, tokenizer: Tokenizer) -> Tokens:
    if len(tokens) >= length:
        return tokens
    padding = numpy.full(length - len(tokens), tokenizer.padding, dtype=numpy.int32)
    return numpy.concatenate([tokens, padding])


def exchange(run: Run, own: Tokens) -> Tokens:
    """Gives every process the tokens of all: from process to process, not from the store again.

    A node holds one copy, in a file that its processes share.
    """
    if run.world_size == 1:
        return own
    sizes: list[int] = [0] * run.world_size
    distributed.all_gather_object(sizes, len(own))
    path = _file(run)
    target: Tokens | None = None
    if run.is_leader:
        target = numpy.memmap(path, numpy.int32, "w+", shape=(max(1, sum(sizes)),))
    at = 0
    for source, size in enumerate(sizes):
        for begin in range(0, size, CHUNK):
            count = min(CHUNK, size - begin)
            mine = source == run.rank
            values = own[begin : begin + count] if mine else numpy.empty(count, numpy.int32)
            chunk = torch.from_numpy(numpy.ascontiguousarray(values))
            distributed.broadcast(chunk, src=source)
            if target is not None:
                target[at : at + count] = chunk.numpy()
            at += count
    distributed.barrier()
    if target is None:
        target = numpy.memmap(path, numpy.int32, "r", shape=(max(1, sum(sizes)),))
    return target[:at]


def _file(run: Run) -> Path:
    path = run.scratch / "data" / "tokens.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
