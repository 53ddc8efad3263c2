"""Prepares transformers' Trainer to resume: the best checkpoint and the position in the data."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from checkpoints import Checkpoint
from run import TrainingError
from runners.hf_data import Stream
from session import Session, barrier

LOG = logging.getLogger("trainer")

# File names of transformers (trainer.py, trainer_utils.py).
STATE = "trainer_state.json"
# The schedule, which is saved with the optimizer. DeepSpeed stores both in a folder.
SCHEDULE = ("scheduler.pt", "global_step*")
# Its packages have lower numbers, so they come first.
PRIORITY = 100
FOLDER = re.compile(r"^checkpoint-(\d+)$")


@cache
def accept_numbered_cpus() -> None:
    """Lets PyTorch load to a device such as `cpu:0`.

    transformers 4 loads the optimizer of several processes on CPUs to it. PyTorch knows only `cpu`.
    """
    torch.serialization.register_package(
        PRIORITY,
        lambda _storage: None,
        lambda storage, place: storage if place.startswith("cpu:") else None,
    )


def prepare(session: Session, trainer: Any, checkpoint: Checkpoint, path: Path) -> None:
    """Prepares a trainer to resume from a downloaded checkpoint. A collective operation."""
    if isinstance(trainer.train_dataset, Stream):
        # The stream starts at the position itself, so transformers must not skip data.
        trainer.train_dataset.begin = checkpoint.step * global_batch(trainer.args)
        trainer.args.ignore_data_skip = True
        trainer.add_callback(InStream(trainer, path))
    accept_numbered_cpus()
    has_schedule = any(found for name in SCHEDULE for found in path.glob(name))
    if not has_schedule or not (path / STATE).exists():
        raise TrainingError(
            f"cannot resume from step {checkpoint.step}: it contains only weights "
            f"(save_only_model); start a new run with another run_id"
        )
    if session.run.is_leader:
        _adapt(session, trainer.args, path / STATE)
    barrier()


class InStream(TrainerCallback):
    """Restores what transformers restores while it skips data, which a stream does not need.

    The data loader changes the random state when it starts.
    """

    def __init__(self, trainer: Any, path: Path) -> None:
        self._restore: Callable[[], None] | None = partial(trainer._load_rng_state, str(path))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Restores the random state before the first step."""
        if self._restore:
            self._restore()
            self._restore = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Counts from the start of the run. An endless stream is one epoch of `max_steps`."""
        state.epoch = state.global_step / state.max_steps


def global_batch(arguments: Any) -> int:
    """Sequences of an optimizer step over all processes."""
    micro: int = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    return micro * int(arguments.world_size)


def step_of(folder: str | None) -> int | None:
    """The step of a checkpoint folder of transformers."""
    match = FOLDER.match(Path(folder).name) if folder else None
    return int(match[1]) if match else None


def _adapt(session: Session, arguments: Any, file: Path) -> None:
    """Changes what depends on the machines in a downloaded trainer state."""
    state = json.loads(file.read_text())
    if not arguments.auto_find_batch_size:
        # transformers 4 trains with the batch size of the checkpoint instead of the job's.
        state["train_batch_size"] = arguments.train_batch_size
    if arguments.load_best_model_at_end:
        state |= _best(session, state)
    file.write_text(json.dumps(state, indent=2) + "\n")


def _best(session: Session, state: Mapping[str, Any]) -> dict[str, Any]:
    """Downloads the best checkpoint, and returns its place on this machine.

    If the path in the state does not exist, transformers forgets the best checkpoint before it
    calls any callback. The store would then not protect it either.
    """
    best = step_of(state.get("best_model_checkpoint"))
    if best is None:
        return {}
    place = session.saving / f"checkpoint-{best}"
    if _fetch(session, best, place):
        return {"best_model_checkpoint": str(place)}
    LOG.warning(
        "the best checkpoint (step %d) is missing: the next evaluation becomes the best", best
    )
    return {"best_model_checkpoint": None, "best_metric": None, "best_global_step": None}


def _fetch(session: Session, step: int, place: Path) -> bool:
    for checkpoint in session.checkpoints.candidates():
        if checkpoint.step != step:
            continue
        folder = session.run.scratch / "best"
        found = session.checkpoints.fetch(checkpoint, folder)
        if found:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(place, ignore_errors=True)
            found.rename(place)
            shutil.rmtree(folder, ignore_errors=True)
        return found is not None
    return False
