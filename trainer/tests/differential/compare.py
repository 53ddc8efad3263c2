"""Compares the checkpoints of two runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

# Values that depend on the time or on paths.
VOLATILE = (
    "runtime", "samples_per_second", "steps_per_second", "best_model_checkpoint", "name_or_path",
)  # fmt: skip
# Metrics that TRL counts from the start of a process, or averages over the batches since then.
OF_A_START = ("num_tokens", "eval_num_tokens", "entropy", "mean_token_accuracy")
COMMIT = re.compile(r"step-\d+\.json$")
# The runner always names a metric, so that each commit records the best step.
BEST = ("best_metric", "best_global_step")
# Files with paths or times: the arguments, the model card, and the index of shards.
ASIDE = {"training_args.bin", "README.md", ".metadata"}


def of_folders(expected: Path, found: Path, *, aside: tuple[str, ...] = ()) -> list[str]:
    """What differs between two checkpoints, bit for bit. `aside` names values in JSON files."""
    names = [_files(folder) for folder in (expected, found)]
    differ = [f"only one has {name}" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        if Path(name).name not in ASIDE:
            both = read(expected / name), read(found / name)
            differ += [f"{name}: {where}" for where in _differences(*both, aside)]
    return differ


def _files(folder: Path) -> set[str]:
    """The files in a folder, without the commits of checkpoints, which contain times."""
    paths = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {str(path) for path in paths if not COMMIT.match(str(path))}


def _differences(one: Any, other: Any, aside: tuple[str, ...]) -> list[str]:
    """Where two contents differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in {**one, **other} if key not in aside]
        return [
            f"{key}.{where}"
            for key in keys
            for where in _differences(one.get(key), other.get(key), aside)
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            f"{at}.{where}"
            for at in range(len(one))
            for where in _differences(one[at], other[at], aside)
        ]
    return [] if one == other else [_shown(one, other)]


def _shown(one: Any, other: Any) -> str:
    shown = f"{one!r} and {other!r}"
    return shown if len(shown) < 200 else "they differ"


def read(file: Path) -> Any:
    """The content of a file in a form that can be compared."""
    if file.suffix == ".safetensors":
        return _plain(load_file(file))
    if file.suffix in (".pt", ".pth", ".bin"):
        return _plain(torch.load(file, weights_only=False))
    if file.suffix == ".json":
        return _plain(json.loads(file.read_text()))
    return file.read_bytes()


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        kept = value.detach().contiguous()
        return str(kept.dtype), tuple(kept.shape), kept.view(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if not _is_volatile(key)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tobytes"):
        return value.tobytes()
    return value


def _is_volatile(key: Any) -> bool:
    return isinstance(key, str) and key.endswith(VOLATILE)


def weights(folder: Path) -> dict[str, Tensor]:
    """The weights or the adapters in a folder."""
    (file,) = folder.glob("*.safetensors")
    return dict(load_file(file))


def distance(first: dict[str, Tensor], one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """How far apart two runs have ended, relative to how far they have moved the weights."""
    assert one.keys() == other.keys()
    moved = apart = 0.0
    for name, weight in one.items():
        begin = first[name].float() if name in first else torch.zeros_like(weight).float()
        moved += (weight.float() - begin).pow(2).sum().item()
        apart += (weight.float() - other[name].float()).pow(2).sum().item()
    return float((apart / moved) ** 0.5)
