"""The plain PyTorch loop: sharded, checkpointed, resumed step for step."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy
import torch
from torch import Tensor, distributed, nn
from torch.optim import AdamW
from torch.utils.data import DataLoader, get_worker_info

import conversations
import data
import session as sessions
from checkpoints import name_of
from conversations import Learned
from data import Counts, Sequences, learned_tokens, shuffled
from logs import Progress
from publisher import Draft
from runners import meta_hf
from runners.meta_arguments import Arguments
from runners.meta_model import Chosen, Plan, build, choose, synchronized
from runners.meta_state import StateKeeper, parameters_of
from session import Session

LOG = logging.getLogger("trainer")


def train(session: Session, arguments: Arguments, device: str) -> None:
    """Trains one run to completion."""
    chosen = choose(session.run, session.storage, arguments)
    sessions.join(session.run)
    Training(session, Plan(arguments, device, session.run.world_size), chosen).train()


class Training:
    """A model, its optimizers, and the data that it is at."""

    def __init__(self, session: Session, plan: Plan, chosen: Chosen) -> None:
        self.session, self.plan, self.arguments = session, plan, plan.arguments
        run, arguments = session.run, plan.arguments
        self.run = run
        self.accumulation = arguments.gradient_accumulation
        self.chosen = chosen
        tokens, field = chosen.tokens, arguments.dataset_text_field
        self.padding = tokens.padding
        layout = data.Layout(arguments.max_seq_len, 1, packing=arguments.packing)
        learned = Learned.ASSISTANT if arguments.assistant_only_loss else Learned.EVERYTHING
        reader = conversations.reader(tokens, field, learned)
        self.model = build(chosen, plan)
        sequences = data.read(run, session.storage, tokens, reader, layout)
        self.held: Sequences | None = None
        if arguments.eval_steps:
            sequences, self.held = sequences.split(run.dataset_uri)
        self.sequences = sequences
        self.total_steps = arguments.max_steps or math.ceil(
            arguments.num_epochs * len(sequences) / self.global_batch
        )
        self.optimizers = self._optimizers()
        self.keeper = StateKeeper(run, self.model, self.optimizers, arguments.async_checkpoint)
        self.step = 0

    @property
    def global_batch(self) -> int:
        """Sequences of one optimizer step, over all processes."""
        return self.arguments.batch_size * self.run.world_size * self.accumulation

    def train(self) -> None:
        """Trains from the step that it stands at to the last."""
        arguments, session = self.arguments, self.session
        session.publisher.keep(arguments.save_total_limit)
        record = {**self.run.arguments, "precision": arguments.precision}
        found = session.prepare(record, self._terms())
        if found:
            self.keeper.load(found[1])
            self.step = found[0].step
        LOG.info(
            "training %s from step %d to %d: %d sequences of %d tokens, global batch %d",
            self.run.model_id,
            self.step,
            self.total_steps,
            len(self.sequences),
            arguments.max_seq_len,
            self.global_batch,
        )
        progress = Progress(self.run, self.step, self.total_steps)
        first, batches = self.step, self._batches()
        counts = Counts(self.sequences, self.padding)
        stop = session.stop_signal()
        while self.step < self.total_steps:
            if stop.is_set():
                # A step that this start has not moved beyond is saved, or there is none yet.
                if self.step > first:
                    self._save()
                session.stop(self.step)
            count = counts.of(self._places_of(self.step))
            loss = self._optimize([next(batches) for _ in range(self.accumulation)], count)
            self.step += 1
            progress.count(count)
            last = self.step == self.total_steps
            if last or self.step == first + 1 or self.step % arguments.logging_steps == 0:
                progress.report(self.step, self._mean(loss, count))
            if arguments.eval_steps and self.step % arguments.eval_steps == 0:
                self._evaluate()
            if last or self.step % arguments.save_steps == 0:
                self._save()

    def _terms(self) -> dict[str, Any]:
        """What a run that resumes has in common with the one that saved."""
        arguments, method = self.arguments, self.arguments.peft_method
        adapters = ("lora_rank", "lora_alpha", "lora_target_modules") if method != "none" else ()
        return {
            "global_batch_size": self.global_batch,
            "max_seq_len": arguments.max_seq_len,
            "packing": arguments.packing,
            "assistant_only_loss": arguments.assistant_only_loss,
            "evaluation": self.held is not None,
            "dataset_uri": self.run.dataset_uri,
            "sequences": len(self.sequences),
            "tokenizer": self.run.tokenizer_id,
            "seed": arguments.seed,
            "optimizer_in_bwd": arguments.optimizer_in_bwd,
            "peft_method": method,
            **{name: getattr(arguments, name) for name in adapters},
        }

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        def adamw(parameters: list[nn.Parameter]) -> AdamW:
            arguments = self.arguments
            # One kernel for all weights. On a CPU the plain one is as quick.
            fused = True if self.plan.holds == "cuda" else None
            return AdamW(
                parameters, lr=arguments.lr, weight_decay=arguments.weight_decay, fused=fused
            )

        trained = parameters_of(self.model)
        if not self.arguments.optimizer_in_bwd:
            return [adamw(trained)]
        each = {parameter: adamw([parameter]) for parameter in trained}

        def update(parameter: nn.Parameter) -> None:
            optimizer = each[parameter]
            optimizer.step()
            optimizer.zero_grad()

        for parameter in trained:
            parameter.register_post_accumulate_grad_hook(update)  # type: ignore[no-untyped-call]
        return list(each.values())

    def _optimize(self, batches: list[Tensor], count: int) -> Tensor:
        """Runs a step on `count` tokens of all processes. Returns the summed loss of this one.

        Nothing here waits for the device.
        """
        # What is drawn in a step, such as dropout, follows from its number: nothing to save.
        torch.manual_seed(hash((self.arguments.seed, self.step, self.run.rank)))
        rate = self.arguments.rate(self.step, self.total_steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        # FSDP takes the mean over processes, and the loss is the mean over all tokens.
        scale = self.run.world_size / max(1, count)
        total = torch.zeros((), device=self.plan.device)
        for number, batch in enumerate(batches):
            last = number == self.accumulation - 1
            with synchronized(self.model, last), self.plan.activations(), self.plan.computing():
                loss: Tensor = self.model(self._on_device(batch))
            (loss * scale).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if self.arguments.max_grad_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.arguments.max_grad_norm)
        if not self.arguments.optimizer_in_bwd:
            self.optimizers[0].step()
            self.optimizers[0].zero_grad()
        return total

    def _evaluate(self) -> None:
        """The loss on what is held out, each process on its share."""
        assert self.held is not None
        size, world = self.arguments.batch_size, self.run.world_size
        self.model.eval()
        total = counted = 0.0
        # FSDP gathers weights for each pass, so that all processes make as many.
        passes = math.ceil(len(self.held) / (size * world))
        with torch.no_grad(), self.plan.computing():
            for number in range(passes):
                begin = (number * world + self.run.rank) * size
                at = range(begin, min(begin + size, len(self.held)))
                rows = [self.held[index] for index in at] or [self.held[0]]
                batch = self._batch(rows)
                loss = self.model(self._on_device(batch))
                if at:
                    total += loss.item()
                    counted += float(learned_tokens(batch.numpy(), self.padding))
        self.model.train()
        mean = self._sum(total) / max(1.0, self._sum(counted))
        if self.run.is_writer:
            LOG.info("evaluation at step %d: loss %.4f", self.step, mean)

    def _save(self) -> None:
        """Publishes the step while the training continues."""
        begun = time.monotonic()
        self.session.publisher.wait()
        write = self.keeper.save(self.step)
        if self.arguments.save_hf and self.step == self.total_steps:
            write = meta_hf.with_export(
                self.run, self.model, self.chosen, name_of(self.step), write
            )
        if self.arguments.peft_method != "none":
            export = meta_hf.Adapters(self.run, self.chosen, self.arguments)
            write = export.beside(self.model, name_of(self.step), write)
        self.session.publish(
            Draft(self.step, write, {"model_id": self.run.model_id}, nodes=self.keeper.nodes)
        )
        LOG.info("training paused for %.3f s to save step %d", time.monotonic() - begun, self.step)

    def _batches(self) -> Iterator[Tensor]:
        """The micro batches of this process, from the current step of the run.

        The sequences of a step depend only on its number, not on the number of processes. A resumed
        run therefore continues with the right ones, and more processes train the same curve.
        """
        workers = self.arguments.dataloader_workers
        loader: DataLoader[Any] = DataLoader(
            self.sequences,  # type: ignore[arg-type]
            batch_sampler=self._places(),
            collate_fn=self._batch,
            num_workers=workers,
            # Tokens are in memory, which a forked process shares.
            multiprocessing_context="fork" if workers else None,
        )
        return iter(loader)

    def _places(self) -> Iterator[list[int]]:
        size, world = self.arguments.batch_size, self.run.world_size
        for step in range(self.step, self.total_steps):
            places = self._places_of(step)
            for micro in range(self.accumulation):
                begin = (micro * world + self.run.rank) * size
                yield places[begin : begin + size]

    def _places_of(self, step: int) -> list[int]:
        """The sequences of a step over all processes, in the order of their micro batches."""
        begin = step * self.global_batch
        return [self._place(at) for at in range(begin, begin + self.global_batch)]

    def _place(self, position: int) -> int:
        epoch, place = divmod(position, len(self.sequences))
        return shuffled(len(self.sequences), f"{self.arguments.seed}/{epoch}")[place]

    def _batch(self, rows: list[Any]) -> Tensor:
        batch = torch.from_numpy(numpy.stack(rows)).long()
        return batch.pin_memory() if self._pins else batch

    @property
    def _pins(self) -> bool:
        # A forked worker must not touch the GPU.
        return self.plan.device == "cuda" and get_worker_info() is None

    def _on_device(self, batch: Tensor) -> Tensor:
        return batch.to(self.plan.device, non_blocking=True)

    def _mean(self, loss: Tensor, count: int) -> float:
        return self._sum(loss.item()) / max(1, count)

    def _sum(self, value: float) -> float:
        """The sum over all processes. All of them call it together."""
        if not distributed.is_initialized():
            return value
        total = torch.tensor(value, dtype=torch.float64)
        distributed.all_reduce(total)
        return float(total.item())
