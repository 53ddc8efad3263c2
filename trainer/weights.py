"""The safetensors files of a model's folder: where each tensor is, and whether all are whole."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run import TrainingError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# Files of other formats and of adapters in the folder of a model.
OTHERS = ("consolidated", "adapter_model")
# Maximum size of a valid header. Those of the largest models have some hundred kilobytes.
LONGEST_HEADER = 100 << 20


@dataclass(frozen=True)
class Stored:
    """Where a tensor is stored."""

    file: Path
    shape: tuple[int, ...]


class WeightFiles:
    """The tensors of a model by name."""

    def __init__(self, folder: Path, tensors: Mapping[str, Stored], listed_in: str) -> None:
        self.folder, self.tensors = folder, tensors
        # The file that says which tensors there are, for errors.
        self.listed_in = listed_in

    @staticmethod
    def find(folder: Path) -> WeightFiles | None:
        """What a folder holds; nothing without a safetensors file. Files that are cut off raise."""
        index = folder / INDEX
        if index.exists():
            return WeightFiles(folder, _by_index(index), INDEX)
        single = folder / SINGLE
        files = [single] if single.exists() else _others(folder)
        if not files:
            return None
        listed_in = files[0].name if len(files) == 1 else "the .safetensors files"
        return WeightFiles(folder, _by_files(files), listed_in)


def has_other_weights(folder: Path) -> list[str]:
    """Weights in formats that safetensors has replaced."""
    return sorted(path.name for path in folder.glob("*.bin") if "model" in path.name)


def _others(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.safetensors"))
    return [path for path in found if not path.name.startswith(OTHERS)]


def _by_index(index: Path) -> dict[str, Stored]:
    try:
        files: dict[str, str] = dict(json.loads(index.read_bytes())["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{index} is not an index of safetensors files: it needs an object `weight_map`"
        ) from error
    headers = {}
    for name in sorted(set(files.values())):
        path = index.parent / name
        if not path.exists():
            raise TrainingError(f"{path}, which {INDEX} names, is missing: copy the whole model")
        headers[name] = _header(path)
    found = {}
    for tensor, name in files.items():
        if tensor not in headers[name]:
            raise TrainingError(
                f"{INDEX} says that {tensor} is in {name}, which does not have it: the files are "
                f"of different models, so copy the whole model again"
            )
        found[tensor] = headers[name][tensor]
    return found


def _by_files(files: Iterable[Path]) -> dict[str, Stored]:
    return {name: stored for path in files for name, stored in _header(path).items()}


def _header(path: Path) -> dict[str, Stored]:
    """The tensors of a file, whose size has to be what its header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else LONGEST_HEADER + 1
        if length > LONGEST_HEADER:
            raise TrainingError(f"{path} is not a safetensors file: copy the model again")
        text = file.read(length)
    if len(text) < length:
        raise _cut_off(path, size, 8 + length)
    try:
        header: dict[str, dict[str, Any]] = json.loads(text)
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        found = {name: Stored(path, tuple(entry["shape"])) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"{path} is not a safetensors file: copy the model again") from error
    if size < 8 + length + end:
        raise _cut_off(path, size, 8 + length + end)
    return found


def _cut_off(path: Path, size: int, whole: int) -> TrainingError:
    return TrainingError(
        f"{path} is cut off: it has {size} bytes, and its header says {whole}; copy it again"
    )
