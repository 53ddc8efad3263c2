"""Fills the plain loop's model: each process reads or draws its own rows of each weight."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from llama import Llama
from run import TrainingError
from runners.meta_names import is_adapter, theirs
from weights import WeightFiles

# Numbers that are drawn at once. Part of what a seed means: another size draws other weights.
BLOCK = 1 << 20
# Tensors of older checkpoints that follow from the configuration.
DERIVED = "rotary_emb.inv_freq"

# The rows of a weight from one number up to another.
Rows = Callable[[int, int], Tensor]
# Fills a block with numbers of a generator.
Draw = Callable[[Tensor, torch.Generator], Tensor]


def fill(model: Llama, source: Callable[[str, torch.Size], Rows]) -> None:
    """Gives each parameter its values: `source` is asked for a name and the shape of the whole.

    Where the model is sharded a process asks for its own rows alone.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            local, begin = _mine(parameter)
            if local.shape[0]:
                rows = source(name, parameter.shape)(begin, begin + local.shape[0])
                local.copy_(rows)


def _mine(parameter: Tensor) -> tuple[Tensor, int]:
    """What this process holds of a parameter, and the number of its first row."""
    if not isinstance(parameter, DTensor):
        return parameter, 0
    begin = 0
    for dimension, placement in enumerate(parameter.placements):
        if isinstance(placement, Shard):
            parts = parameter.device_mesh.size(dimension)
            size = -(-parameter.shape[0] // parts)
            begin = min(parameter.shape[0], size * parameter.device_mesh.get_local_rank(dimension))
    return parameter.to_local(), begin


def stored(files: WeightFiles) -> Callable[[str, torch.Size], Rows]:
    """Weights of safetensors files in the names of Hugging Face."""
    from safetensors import safe_open

    def of(name: str, _shape: torch.Size) -> Rows:
        key = theirs(name)
        file = files.tensors[key].file

        def rows(begin: int, end: int) -> Tensor:
            # Opened for each tensor: pages of a file count as memory for as long as it is mapped.
            with safe_open(file, framework="pt") as opened:
                found: Tensor = opened.get_slice(key)[begin:end]
                return found

        return rows

    return of


def loaded(state: Mapping[str, Tensor]) -> Callable[[str, torch.Size], Rows]:
    """Weights of a state dict in our own names, whose tensors may be mapped from a file."""

    def of(name: str, _shape: torch.Size) -> Rows:
        tensor = state[name.replace(".base_layer.", ".")]
        return lambda begin, end: tensor[begin:end]

    return of


def drawn(seed: int, deviation: float) -> Callable[[str, torch.Size], Rows]:
    """New weights: the same ones however many processes draw them."""

    def of(name: str, shape: torch.Size) -> Rows:
        if len(shape) == 1:
            value = 0.0 if name.endswith("bias") else 1.0
            return lambda begin, end: torch.full((end - begin,), value)
        if ".lora_B." in name:
            return lambda begin, end: torch.zeros(end - begin, *shape[1:])
        # As PEFT draws an adapter, which is how PyTorch draws a linear layer.
        bound = 1 / math.sqrt(shape[1])

        def draw(block: Tensor, generator: torch.Generator) -> Tensor:
            if ".lora_A." in name:
                return block.uniform_(-bound, bound, generator=generator)
            return block.normal_(std=deviation, generator=generator)

        return _blocks(f"{seed}/{name}", shape[1], draw)

    return of


def with_drawn_adapters(
    source: Callable[[str, torch.Size], Rows], seed: int
) -> Callable[[str, torch.Size], Rows]:
    """A source whose adapters are new."""
    new = drawn(seed, 0.0)
    return lambda name, shape: (new if is_adapter(name) else source)(name, shape)


def _blocks(key: str, width: int, draw: Draw) -> Rows:
    """A matrix that is drawn in blocks of rows, each with a generator of its own."""
    height = max(1, BLOCK // width)

    def rows(begin: int, end: int) -> Tensor:
        found = torch.empty(end - begin, width)
        for number in range(begin // height, -(-end // height)):
            digest = hashlib.sha256(f"{key}/{number}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            block = draw(torch.empty(height, width), generator)
            at = number * height
            first, last = max(begin, at), min(end, at + height)
            found[first - begin : last - begin] = block[first - at : last - at]
        return found

    return rows


def check(model_id: str, model: nn.Module, files: WeightFiles) -> None:
    """Refuses files that lack a weight of the model, or have one of another shape."""
    expected = {theirs(name): tuple(shape) for name, shape in _shapes(model)}
    if missing := [name for name in expected if name not in files.tensors]:
        raise TrainingError(
            f"model {model_id}: {files.listed_in} does not have {missing[0]}"
            f"{f' and {len(missing) - 1} others' if missing[1:] else ''}, which its config.json "
            f"needs: copy the whole model again"
        )
    for name, shape in expected.items():
        found = files.tensors[name].shape
        if found != shape:
            raise TrainingError(
                f"model {model_id}: {name} is {list(found)} in {files.tensors[name].file.name}, "
                f"and its config.json needs {list(shape)}: the files are of different models"
            )
    ignored = {"lm_head.weight"} if "lm_head.weight" not in expected else set()
    others = set(files.tensors) - set(expected) - ignored
    if others := {name for name in others if not name.endswith(DERIVED)}:
        raise TrainingError(
            f"model {model_id} has {min(others)}, which is not a weight of Llama: use framework hf"
        )


def _shapes(model: nn.Module) -> Iterator[tuple[str, torch.Size]]:
    for name, parameter in model.named_parameters():
        if not is_adapter(name):
            yield name, parameter.shape


def check_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Refuses a state dict of another model."""
    for name, shape in _shapes(model):
        ours = name.replace(".base_layer.", ".")
        if ours not in state or state[ours].shape != shape:
            raise ValueError(f"it has no {ours} of shape {list(shape)}")


def open_state(path: Path) -> dict[str, Any]:
    """The weights in a `.pt` or `.safetensors` file; a process reads what it looks at."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return dict(state.get("model", state))
