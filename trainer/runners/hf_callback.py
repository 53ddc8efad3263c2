"""A callback of transformers' Trainer for progress, publishing and stopping."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from checkpoints import WEIGHTS_ONLY, Native, name_of
from logs import LOG, Progress
from publisher import Draft
from runners.hf_resuming import step_of
from session import Session, barrier


class Publishing(TrainerCallback):
    """Publishes `checkpoint-500` as `step-000500`, and reports progress."""

    def __init__(self, session: Session, trainer: Any, tokens_per_sequence: float) -> None:
        self._session, self._trainer = session, trainer
        self._tokens = tokens_per_sequence
        self._progress: Progress | None = None
        self._published = 0
        self._stopped = self._has_begun = False
        self._at_step_end = time.monotonic()

    @property
    def has_begun(self) -> bool:
        """Whether the first step has ended."""
        return self._has_begun

    def end(self) -> None:
        """Ends a run that received SIGTERM as unsuccessful."""
        if self._stopped:
            self._session.stop(self._published)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Starts to measure progress."""
        self._progress = Progress(self._session.run, state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Counts tokens, and stops the run if a process received SIGTERM."""
        assert self._progress
        self._has_begun = True
        self._at_step_end = time.monotonic()
        sequences = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        self._progress.count(round(sequences * self._tokens))
        last = state.global_step >= state.max_steps
        if last:
            control.should_log = True
            # A run always saves its last step.
            control.should_save |= args.save_strategy == "no"
        elif self._session.should_stop():
            control.should_save = control.should_training_stop = self._stopped = True
            # An evaluation may take too long, and with save_strategy best it decides what to save.
            control.should_evaluate = False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Prevents a second checkpoint of the same step."""
        if state.global_step == self._published:
            control.should_save = False

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Reports progress or the result of an evaluation."""
        if not logs:
            return
        if "loss" in logs and self._progress:
            self._progress.report(state.global_step, float(logs["loss"]))
        if "eval_loss" in logs and self._session.run.is_writer:
            loss = float(logs["eval_loss"])
            LOG.info("evaluation at step %d: loss %.4f", state.global_step, loss)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Publishes the new checkpoint after all processes have written it."""
        step = state.global_step
        self._session.publisher.wait()
        barrier()
        best = step_of(state.best_model_checkpoint)
        folder = Path(args.output_dir) / f"checkpoint-{step}"
        self._remove_all_but({step, best} if args.load_best_model_at_end else {step})
        natives = [Native(folder, name_of(step))]
        writes = self._trainer.take_writes()

        def write() -> list[Native]:
            # Release each copy as soon as it is written.
            while writes:
                writes.pop(0)()
            return natives

        self._session.publish(
            Draft(
                step,
                write,
                {
                    "model_id": self._session.run.model_id,
                    "best_step": best,
                    "best_metric": state.best_metric,
                    WEIGHTS_ONLY: bool(args.save_only_model),
                },
                protected=frozenset({best} if best and _keeps_best(args) else ()),
                discard=not args.load_best_model_at_end,
                nodes=self._session.run.nodes,
            )
        )
        self._published = step
        # This includes an evaluation at the same step.
        still = time.monotonic() - self._at_step_end
        LOG.info("training paused for %.3f s to save step %d", still, step)

    def _remove_all_but(self, steps: set[int | None]) -> None:
        """Deletes published checkpoints from this machine."""
        if not self._session.run.is_leader:
            return
        for folder in Path(self._trainer.args.output_dir).glob("checkpoint-*"):
            if step_of(str(folder)) not in steps:
                shutil.rmtree(folder, ignore_errors=True)


def _keeps_best(args: Any) -> bool:
    """Whether the job asks for the best checkpoint, and not only for evaluations."""
    return bool(args.load_best_model_at_end) or str(args.save_strategy.value) == "best"
