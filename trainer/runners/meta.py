"""Meta's Llama in a plain PyTorch loop: data parallel, checkpointed, resumed step for step."""

from __future__ import annotations

import io
import logging
import math
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

import data
from checkpoints import CheckpointManager
from model import MODELS, Llama
from run import Run, TrainingError
from storage import Storage

LOG = logging.getLogger("trainer")

# Arguments that change what is trained and that this loop does not have, with the values that ask
# for nothing. The plugin refuses the sizes of parallelism by itself for this backend.
REFUSED: dict[str, tuple[Any, ...]] = {
    "backend": ("fsdp",),
    "float8": (False,),
    "initial_load_path": (),
    "optimizer_in_bwd": (False,),
    "peft_method": ("none",),
    "save_hf": (False,),
    "tokenizer_name": (),
}
# What a process ends with that was told to stop: it was cut off and has not succeeded.
EXIT_CODE_TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Arguments:
    """The arguments of this runner, by their canonical names; the plugin has checked the values."""

    dataset_text_field: str = "text"
    # Sequences per process and micro step.
    batch_size: int = 1
    num_epochs: int = 1
    # Overrides num_epochs.
    max_steps: int | None = None
    lr: float = 2e-5
    max_seq_len: int = 2048
    gradient_accumulation: int = 1
    # Sequences of an optimizer step over all processes; stands for gradient_accumulation.
    global_batch_size: int | None = None
    save_steps: int = 100
    # Newest checkpoints to keep.
    save_total_limit: int | None = None
    warmup_steps: int = 0
    # A share of all steps, instead of warmup_steps.
    warmup_ratio: float | None = None
    # How the rate falls after the warm-up: linear, sqrt, cosine or constant.
    lr_scheduler: str = "linear"
    weight_decay: float = 0.01
    # 0 is no clipping.
    max_grad_norm: float = 1.0
    seed: int = 42
    logging_steps: int = 10
    precision: str = "bf16-mixed"

    @staticmethod
    def read(given: dict[str, Any]) -> Arguments:
        """Takes what it knows, refuses what would train something else, and says what it leaves
        aside."""
        for name, values in REFUSED.items():
            if name in given and given[name] not in values:
                raise TrainingError(
                    f"{name} {given[name]}: the plain loop of this image does not have it; "
                    f"leave it out or set `image` to one that does"
                )
        known = {field.name for field in fields(Arguments)}
        aside = sorted(set(given) - known - set(REFUSED))
        if aside:
            LOG.warning("arguments that this runner does not have: %s", ", ".join(aside))
        return Arguments(**{name: given[name] for name in known & set(given)})

    def accumulation(self, world_size: int) -> int:
        """Micro steps of an optimizer step."""
        if self.global_batch_size is None:
            return self.gradient_accumulation
        return self.global_batch_size // (self.batch_size * world_size)

    def rate(self, step: int, total: int) -> float:
        """The learning rate of a step, counted from 0."""
        warmup = self.warmup_steps
        if self.warmup_ratio is not None:
            warmup = math.ceil(self.warmup_ratio * total)
        if step < warmup:
            return self.lr * (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1, total - warmup)
        left = {
            "linear": 1 - done,
            "sqrt": 1 - math.sqrt(done),
            "cosine": (1 + math.cos(math.pi * done)) / 2,
            "constant": 1.0,
        }
        return self.lr * left[self.lr_scheduler]


def run(run: Run) -> None:
    """Trains one run to its end."""
    storage = Storage(run.environment)
    log_file = start_logs(run)
    device = join(run)
    try:
        Training(run, storage, device).run()
    except TrainingError:
        raise
    except Exception:
        LOG.exception("training failed")
        raise
    finally:
        logging.shutdown()
        storage.write(f"{run.logs_uri}/{log_file.name}", log_file.read_bytes())
        if distributed.is_initialized():
            distributed.destroy_process_group()


def start_logs(run: Run) -> Path:
    """Logs go to standard error and to a file, which goes to the run's logs in the end."""
    root = Path(run.environment.get("TRAINING_LOCAL_ROOT", "/tmp/trainer"))
    folder = root / run.run_id / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    # The time keeps apart what a run and its restarts have to say.
    started = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
    file = folder / f"{started}-rank-{run.rank}.log"
    level = run.environment.get("TRAINER_LOG_LEVEL", "INFO")
    logging.basicConfig(
        level=level,
        format=f"%(asctime)s rank {run.rank} %(levelname)s %(message)s",
        handlers=[logging.StreamHandler(sys.stderr), logging.FileHandler(file, mode="w")],
        force=True,
    )
    return file


def join(run: Run) -> torch.device:
    """Meets the other processes; gives the device of this one."""
    on_gpu = torch.cuda.is_available() and int(run.environment.get("GPUS_PER_NODE", "1")) > 0
    if on_gpu:
        torch.cuda.set_device(int(run.environment.get("LOCAL_RANK", "0")))
    if run.world_size > 1:
        distributed.init_process_group("nccl" if on_gpu else "gloo")
    return torch.device("cuda" if on_gpu else "cpu")


class Training:
    """A model, its optimizer, and the data that it is at."""

    def __init__(self, run: Run, storage: Storage, device: torch.device) -> None:
        if run.model_id not in MODELS:
            known = ", ".join(sorted(MODELS))
            raise TrainingError(f"model {run.model_id} is not in this image; known: {known}")
        self.device = device
        self.run_info = run
        self.arguments = Arguments.read(run.arguments)
        self.accumulation = self.arguments.accumulation(run.world_size)
        self.checkpoints = CheckpointManager(run, storage)
        texts = data.read_texts(storage, run.dataset_uri, self.arguments.dataset_text_field)
        self.blocks = data.blocks(texts, self.arguments.max_seq_len)
        self.total_steps = self.arguments.max_steps or math.ceil(
            self.arguments.num_epochs * len(self.blocks) / self.global_batch
        )
        torch.manual_seed(self.arguments.seed)
        self.model = Llama(MODELS[run.model_id]).to(device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=self.arguments.lr,
            weight_decay=self.arguments.weight_decay,
        )
        self.step = 0
        # The epoch that the order of the blocks is of.
        self.epoch = -1
        self.order: list[int] = []
        self.terminated = False

    @property
    def global_batch(self) -> int:
        """Sequences of one optimizer step, over all processes."""
        return self.arguments.batch_size * self.run_info.world_size * self.accumulation

    @property
    def is_writer(self) -> bool:
        """Whether this process writes what belongs to the run."""
        return self.run_info.rank == 0

    def run(self) -> None:
        """Trains from the step that it stands at to the last."""
        signal.signal(signal.SIGTERM, self._terminate)
        self._prepare()
        parallel: nn.Module = self.model
        if distributed.is_initialized():
            parallel = DistributedDataParallel(self.model)
        begun, first = time.monotonic(), self.step
        while self.step < self.total_steps and not self._all_agree_to_stop():
            loss = self._optimize(parallel)
            self.step += 1
            last = self.step == self.total_steps
            if last or self.step == first + 1 or self.step % self.arguments.logging_steps == 0:
                self._report(loss, (time.monotonic() - begun) / (self.step - first))
            if last or self.step % self.arguments.save_steps == 0:
                self._save()
        if self.step < self.total_steps:
            LOG.warning("told to stop at step %d: saving it", self.step)
            self._save()
            sys.exit(EXIT_CODE_TERMINATED)

    def _terminate(self, _signal: int, _frame: FrameType | None) -> None:
        self.terminated = True

    def _all_agree_to_stop(self) -> bool:
        """Whether any process was told to stop: all have to stop at the same step."""
        if not distributed.is_initialized():
            return self.terminated
        told = torch.tensor(int(self.terminated), device=self.device)
        distributed.all_reduce(told, op=distributed.ReduceOp.MAX)
        return bool(told.item())

    def _prepare(self) -> None:
        """Goes to the step where the run stands, and records how it was started."""
        run = self.run_info
        resume = run.resume or run.is_restart or self.checkpoints.belongs_to_this_job()
        if resume:
            self._resume()
        self._meet()
        if self.is_writer:
            if not resume and self.checkpoints.committed_steps():
                LOG.warning("starting anew: removing the checkpoints of the run before this one")
                self.checkpoints.clear()
            self.checkpoints.clear_uncommitted()
            resolved = asdict(self.arguments)
            self.checkpoints.write_run_config(resolved)
            LOG.info(
                "training %s from step %d to %d: %d blocks of %d tokens, global batch %d",
                run.model_id,
                self.step,
                self.total_steps,
                len(self.blocks),
                self.arguments.max_seq_len,
                self.global_batch,
            )
        self._meet()

    def _meet(self) -> None:
        if distributed.is_initialized():
            distributed.barrier()

    def _resume(self) -> None:
        checkpoint = self.checkpoints.newest()
        if checkpoint is None:
            LOG.warning("no checkpoint to resume from: starting at step 0")
            return
        state = torch.load(io.BytesIO(checkpoint.data), map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = checkpoint.step
        LOG.info("resumed from step %d", self.step)

    def _save(self) -> None:
        """Commits the step. Rank 0 writes, and the others wait, so that no step is counted that
        is not on disk."""
        if self.is_writer:
            buffer = io.BytesIO()
            torch.save(
                {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}, buffer
            )
            self.checkpoints.save(
                self.step, buffer.getvalue(), {"model_id": self.run_info.model_id}
            )
            LOG.info("saved step %d", self.step)
            if self.arguments.save_total_limit is not None:
                self.checkpoints.keep(self.arguments.save_total_limit)
        self._meet()

    def _optimize(self, parallel: nn.Module) -> float:
        """One optimizer step; gives the loss of this process's share."""
        rate = self.arguments.rate(self.step, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        accumulation = self.accumulation
        total = 0.0
        for micro, batch in enumerate(self._micro_batches()):
            with self._precision(), self._synchronized(parallel, micro == accumulation - 1):
                loss: Tensor = parallel(batch) / accumulation
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        if self.arguments.max_grad_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.arguments.max_grad_norm)
        self.optimizer.step()
        return total

    def _precision(self) -> Any:
        # On a CPU bfloat16 is slower than float32.
        if self.device.type == "cuda" and self.arguments.precision != "fp32":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()

    def _synchronized(self, parallel: nn.Module, last: bool) -> Any:
        """Gradients are exchanged once a step, with the last micro batch."""
        if isinstance(parallel, DistributedDataParallel) and not last:
            return parallel.no_sync()
        return nullcontext()

    def _micro_batches(self) -> Iterator[Tensor]:
        """This process's share of the step's sequences.

        Which sequences a step has follows from its number alone, whatever the number of processes:
        so a resumed run goes on with the right ones, and more processes train the same curve.
        """
        size = self.arguments.batch_size
        start = self.step * self.global_batch + self.run_info.rank * size
        for micro in range(self.accumulation):
            at = start + micro * size * self.run_info.world_size
            yield torch.tensor([self._block(at + n) for n in range(size)], device=self.device)

    def _block(self, position: int) -> list[int]:
        epoch, place = divmod(position, len(self.blocks))
        if epoch != self.epoch:
            self.epoch = epoch
            self.order = list(range(len(self.blocks)))
            random.Random(f"{self.arguments.seed}/{epoch}").shuffle(self.order)
        return self.blocks[self.order[place]]

    def _report(self, loss: float, seconds_per_step: float) -> None:
        if not self.is_writer:
            return
        tokens = self.global_batch * self.arguments.max_seq_len / seconds_per_step
        left = round((self.total_steps - self.step) * seconds_per_step)
        LOG.info(
            "step %d/%d loss %.4f tokens/s %.0f left %d:%02d",
            self.step,
            self.total_steps,
            loss,
            tokens,
            *divmod(left, 60),
        )
