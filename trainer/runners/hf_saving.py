"""Copies the state of a run for a checkpoint, and writes it while the training continues."""

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

# Names of files that transformers reads to resume (trainer.py, trainer_utils.py).
OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"
# Maximum share of the free memory for a copy.
SHARE = 0.5
# Types that can be copied or are immutable.
PLAIN = frozenset({torch.Tensor, Parameter, bool, int, float, str, type(None)})


def deferred_saving(trainer: type[Any]) -> type[Any]:
    """Creates a Trainer that defers most writes of a checkpoint to the caller of `take_writes`.

    It copies weights and optimizer into memory, which is faster than writing to a disk. If they
    are sharded, if memory is low, or if others read the checkpoint immediately, transformers
    writes them as usual.
    """

    class Later(trainer):  # type: ignore[misc]
        _writes: tuple[Callable[[], None], ...] = ()
        # Waits until the copies of the previous checkpoint are released.
        before_copying: Callable[[], None] = staticmethod(lambda: None)

        def create_optimizer(self, *arguments: Any, **more: Any) -> Any:
            with explained(f"optim {_name(self.args.optim)}", "choose another optim"):
                return super().create_optimizer(*arguments, **more)

        def create_scheduler(self, *arguments: Any, **more: Any) -> Any:
            name = _name(self.args.lr_scheduler_type)
            with explained(f"lr_scheduler {name}", "set lr_scheduler_kwargs, or choose another"):
                return super().create_scheduler(*arguments, **more)

        def take_writes(self) -> list[Callable[[], None]]:
            """Returns the deferred writes of the latest checkpoint, and forgets them."""
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
            """Whether this process writes a whole checkpoint that only the publisher reads."""
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
            """Whether the checkpoint consists of all weights and is not read again at the end."""
            from transformers import PreTrainedModel

            whole = isinstance(self.model, PreTrainedModel)
            return whole and not self.args.load_best_model_at_end

    # The name appears in logs.
    Later.__name__ = trainer.__name__
    return Later


def _name(choice: Any) -> str:
    """The name of an enum value of transformers in a request."""
    return str(getattr(choice, "value", choice))


def copy_of(state: Any) -> Any:
    """Copies the state to the CPU. Returns None if that is not possible."""
    leaves, shape = tree_flatten(state)
    # Other types, such as quantized tensors of an optimizer, may not support copies.
    if not all(type(leaf) in PLAIN for leaf in leaves):
        return None
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    if sum(tensor.nbytes for tensor in tensors) > SHARE * available():
        return None
    # Shared weights must stay shared, because safetensors writes them once.
    copies: dict[tuple[Any, ...], torch.Tensor] = {}

    def copied(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        place = (leaf.data_ptr(), leaf.dtype, leaf.shape, leaf.stride())
        if place not in copies:
            copies[place] = leaf.detach().to("cpu", copy=True)
        return copies[place]

    return tree_unflatten([copied(leaf) for leaf in leaves], shape)
