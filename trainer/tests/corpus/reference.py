"""Reads the files of the corpus with pandas and with datasets."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow

UNPACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
    ".zst": lambda content: bytes(
        pyarrow.CompressedInputStream(io.BytesIO(content), "zstd").read()
    ),
}


def readings(file: Path) -> list[list[str]]:
    """The texts of a file as each library reads them, without those that fail."""
    found = []
    for read in (of_pandas, of_datasets):
        try:
            texts = read(file)
        except Exception:
            continue
        if all(isinstance(text, str) for text in texts):
            found.append(texts)
    return found


def of_pandas(file: Path) -> list[Any]:
    """The texts of a file as pandas reads them, without conversions."""
    import pandas  # type: ignore[import-untyped]

    content = file.read_bytes()
    unpack = UNPACK.get(file.suffix)
    kind = Path(file.stem).suffix if unpack else file.suffix
    source = io.BytesIO(unpack(content) if unpack else content)
    if kind in (".csv", ".tsv"):
        separator = "," if kind == ".csv" else "\t"
        frame = pandas.read_csv(source, sep=separator, dtype=str, keep_default_na=False)
    elif kind == ".parquet":
        frame = pandas.read_parquet(source)
    elif kind in (".json", ".jsonl"):
        frame = pandas.read_json(source, lines=kind == ".jsonl", dtype=False, orient="records")
    else:
        raise ValueError("pandas does not read plain text")
    return list(frame["text"])


def of_datasets(file: Path) -> list[Any]:
    """The texts of a file as datasets reads them."""
    import datasets

    datasets.disable_progress_bars()
    kinds = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".txt": "text"}
    suffix = Path(file.stem).suffix if file.suffix in UNPACK else file.suffix
    more: dict[str, Any] = {}
    if kinds.get(suffix) == "csv":
        more = {"sep": "," if suffix == ".csv" else "\t", "dtype": str, "keep_default_na": False}
    loaded: Any = datasets.load_dataset(
        kinds.get(suffix, "json"), data_files=str(file), split="train",
        cache_dir=str(file.parent / "cache"), **more,
    )  # fmt: skip
    return list(loaded["text"])
