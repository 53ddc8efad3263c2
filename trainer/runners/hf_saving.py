"""Takes the state of a run for a checkpoint, and writes it while the training goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import Parameter
from torch.utils._pytree import tree_flatten, tree_unflatten

from memory import available
from runners import explained

# The names that transformers' resume reads (trainer.py, trainer_utils.py).
OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"
# How much of the free memory a copy may take.
SHARE = 0.5
# What is copied, or does not change.
PLAIN = frozenset({torch.Tensor, Parameter, bool, int, float, str, type(None)})


def deferred_saving(trainer: type[Any]) -> type[Any]:
    """A Trainer that leaves the writing of most of a checkpoint to whoever calls `take_writes`.

    Weights and optimizer are copied into memory, which is quicker than any disk. Where they are
    sharded, memory is scarce, or something else reads the checkpoint as soon as it is written,
    transformers writes them as ever.
    """

    class Later(trainer):  # type: ignore[misc]
        _writes: tuple[Callable[[], None], ...] = ()
        # Waits for the copies of the checkpoint before.
        before_copying: Callable[[], None] = staticmethod(lambda: None)

        def create_optimizer(self, *arguments: Any, **more: Any) -> Any:
            with explained(f"optim {_name(self.args.optim)}", "choose another optim"):
                return super().create_optimizer(*arguments, **more)

        def create_scheduler(self, *arguments: Any, **more: Any) -> Any:
            name = _name(self.args.lr_scheduler_type)
            with explained(f"lr_scheduler {name}", "set lr_scheduler_kwargs, or choose another"):
                return super().create_scheduler(*arguments, **more)

        def take_writes(self) -> list[Callable[[], None]]:
            """What is still to be written of the newest checkpoint. It is taken once."""
            writes, self._writes = list(self._writes), ()
            return writes

        def _save_checkpoint(self, *arguments: Any, **more: Any) -> None:
            self.before_copying()
            super()._save_checkpoint(*arguments, **more)

        def _save(
            self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
        ) -> None:
            taken = None
            if self._is_checkpoint(output_dir) and state_dict is None and self._has_all_weights():
                taken = copy_of(self.model.state_dict())
            if output_dir is None or taken is None:
                super()._save(output_dir, state_dict)
                return
            os.makedirs(output_dir, exist_ok=True)
            write = super()._save
            self._writes += (lambda: write(output_dir, taken),)

        def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
            taken = None
            if self._is_checkpoint(output_dir):
                taken = copy_of([self.optimizer.state_dict(), self.lr_scheduler.state_dict()])
            if taken is None:
                super()._save_optimizer_and_scheduler(output_dir)
                return
            optimizer, scheduler = taken
            folder = Path(output_dir)
            self._writes += (
                lambda: torch.save(optimizer, folder / OPTIMIZER),
                lambda: torch.save(scheduler, folder / SCHEDULER),
            )

        def _is_checkpoint(self, folder: str | None) -> bool:
            """Whether this process writes a checkpoint, all of it, and for the publisher alone."""
            arguments = self.args
            if Path(folder or "").name != f"checkpoint-{self.state.global_step}":
                return False
            sharded = self.is_deepspeed_enabled or self.is_fsdp_enabled
            on_torch = arguments.device.type in ("cpu", "cuda")
            read_at_once = (
                arguments.push_to_hub
                or arguments.report_to
                or getattr(arguments, "enable_jit_checkpoint", False)
            )
            return bool(arguments.should_save and on_torch and not sharded and not read_at_once)

        def _has_all_weights(self) -> bool:
            """Adapters alone are written of others; the best weights are read at the end."""
            from transformers import PreTrainedModel

            whole = isinstance(self.model, PreTrainedModel)
            return whole and not self.args.load_best_model_at_end

    # As it is told in logs.
    Later.__name__ = trainer.__name__
    return Later


def _name(choice: Any) -> str:
    """A choice of transformers as a request spells it."""
    return str(getattr(choice, "value", choice))


def copy_of(state: Any) -> Any:
    """A copy on the CPU that later steps do not change; nothing where there can be none."""
    leaves, shape = tree_flatten(state)
    # Of others, such as an optimizer's quantized tensors, nobody here knows what a copy is.
    if not all(type(leaf) in PLAIN for leaf in leaves):
        return None
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    if sum(tensor.nbytes for tensor in tensors) > SHARE * available():
        return None
    # Weights that two layers share stay shared: safetensors writes them once.
    copies: dict[tuple[Any, ...], torch.Tensor] = {}

    def copied(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        place = (leaf.data_ptr(), leaf.dtype, leaf.shape, leaf.stride())
        if place not in copies:
            copies[place] = leaf.detach().to("cpu", copy=True)
        return copies[place]

    return tree_unflatten([copied(leaf) for leaf in leaves], shape)
