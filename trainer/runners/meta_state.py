"""The state of the plain loop: one file of one process, or a sharded folder of many."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save
from torch.optim import Optimizer

from checkpoints import Native, name_of
from llama import Llama
from run import Run
from storage import no_space

State = dict[str, Any]
# Writes what a checkpoint consists of, and gives it.
Write = Callable[[], list[Native]]


class StateKeeper:
    """Saves and restores a model and its optimizers."""

    def __init__(self, run: Run, model: Llama, optimizers: list[Optimizer], mode: str) -> None:
        self._run, self._model, self._optimizers, self._mode = run, model, optimizers, mode
        self._folder = run.scratch / "saving"
        # Collectives of the background must not barrier those of the training.
        asynchronous = run.world_size > 1 and mode != "disabled"
        self._group: Any = distributed.new_group(backend="gloo") if asynchronous else None
        self._pending: Any = None

    @property
    def nodes(self) -> int:
        """Nodes that have files of a checkpoint."""
        return self._run.nodes if self._run.world_size > 1 else 1

    def save(self, step: int) -> Write:
        """Takes the state as it is now. What is left to write is written by what this gives."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._run.world_size > 1:
            return self._save_sharded(step)
        name = f"{name_of(step)}.pt"
        path = self._folder / name
        if self._mode == "disabled":
            _write(self._state(), path)
            return lambda: [Native(path, name)]
        pinned = self._mode == "async_with_pinned_mem" and torch.cuda.is_available()
        state = _copied(self._state(), pinned)

        def write() -> list[Native]:
            _write(state, path)
            return [Native(path, name)]

        return write

    def load(self, path: Path) -> None:
        """Restores what `save` has taken, on any number of processes."""
        if path.is_dir():
            state = self._state()
            load(state, checkpoint_id=str(path), no_dist=self._run.world_size == 1)
            options = StateDictOptions()
        else:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            options = StateDictOptions(full_state_dict=self._run.world_size > 1)
        set_state_dict(
            self._model,
            self._optimizers,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=options,
        )

    def _state(self) -> State:
        model, optimizer = get_state_dict(self._model, self._optimizers)
        return {"model": model, "optimizer": optimizer}

    def _save_sharded(self, step: int) -> Write:
        name = name_of(step)
        path = self._folder / name
        if self._run.is_leader:
            shutil.rmtree(path, ignore_errors=True)
        distributed.barrier()
        if self._mode == "disabled":
            save(self._state(), checkpoint_id=str(path))
            return lambda: [Native(path, name)]
        if self._pending:
            self._pending.result()
        pending: Any = async_save(self._state(), checkpoint_id=str(path), process_group=self._group)
        self._pending = pending

        def write() -> list[Native]:
            pending.result()
            return [Native(path, name)]

        return write


def _write(state: State, path: Path) -> None:
    try:
        torch.save(state, path)
    except (OSError, RuntimeError) as error:
        path.unlink(missing_ok=True)
        # PyTorch's writer says no more than that it could not write.
        full = shutil.disk_usage(path.parent).free < 1 << 20
        if full or isinstance(error, OSError):
            raise no_space(str(path)) from error
        raise


def _copied(value: Any, pinned: bool) -> Any:
    """A copy on the CPU that further training does not change."""
    if isinstance(value, Tensor):
        copy = torch.empty(value.shape, dtype=value.dtype, pin_memory=pinned)
        return copy.copy_(value.detach())
    if isinstance(value, dict):
        return {key: _copied(item, pinned) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item, pinned) for item in value]
    return value


def parameters_of(model: nn.Module) -> list[nn.Parameter]:
    """What is trained: with adapters not all of it."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
