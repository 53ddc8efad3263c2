"""The dataset of the hf runner, in the form that transformers' Trainer needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import torch
from torch.utils.data import IterableDataset, get_worker_info

import data
from data import Layout, Sequences
from run import Run, TrainingError
from runners import hf_model
from runners.hf_arguments import HfArguments
from session import Session
from storage import Storage
from tokens import Bytes, Pretrained, Tokenizer

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Data:
    """The training data, the evaluation data, and the function that builds batches."""

    train: Any
    held: Any
    collate: Callable[[list[Any]], Batch]
    tokens_per_sequence: float


def tokenizer(run: Run, folder: Path | None, options: HfArguments) -> Tokenizer:
    """The tokenizer of a job: the one in a folder, or bytes for a model of this image."""
    return Pretrained(hf_model.tokenizer(run, folder, options)) if folder else Bytes()


def read(session: Session, options: HfArguments, tokens: Tokenizer) -> Data:
    """Reads the dataset, or prepares to read it while training."""
    run, field = session.run, options.value("dataset_text_field")
    layout = Layout(options.value("max_seq_len"), 0, packing=False)
    collate = Collate(tokens)
    evaluates = options.value("eval_strategy") != "no"
    if options.value("dataset_streaming"):
        if evaluates:
            raise TrainingError(
                "dataset_streaming reads rows in order and cannot reserve any for an evaluation: "
                "remove it or the evaluation"
            )
        stream = Stream(replace(run, environment={}), session.storage, tokens, field, layout)
        return Data(stream, None, collate, float(layout.length))
    sequences = data.read(run, session.storage, tokens, data.text_reader(tokens, field), layout)
    train, held = sequences.split(run.dataset_uri) if evaluates else (sequences, None)
    return Data(train, held, collate, mean_tokens(train, tokens.padding))


def mean_tokens(sequences: Sequences, padding: int) -> float:
    """The average number of tokens in a sequence without padding, estimated from a sample."""
    some = range(0, len(sequences), max(1, len(sequences) // 1000))
    return float(numpy.mean([int((sequences[at] != padding).sum()) for at in some]))


class Collate:
    """Builds batches. Padding is masked in the attention and in the labels."""

    def __init__(self, tokens: Tokenizer) -> None:
        self._end, self._padding = tokens.end, tokens.padding

    def __call__(self, rows: list[Any]) -> Batch:
        """Builds a batch for a causal language model."""
        tokens = torch.from_numpy(numpy.stack(rows)).long()
        filled = tokens == self._padding
        return {
            "input_ids": tokens.masked_fill(filled, self._end),
            "labels": tokens.masked_fill(filled, -100),
            "attention_mask": (~filled).long(),
        }


class Stream(IterableDataset[Any]):
    """An endless stream of the sequences in the order of the dataset, read during training.

    A batch at the end of a pass continues with the first sequences of the next pass. Sequence
    number `n` of a run is therefore the same, no matter how often the run resumed.

    Accelerate reads the stream on rank 0 and distributes the sequences. Only the first worker of
    rank 0 reads, because a sequence can only be located after tokenizing all texts before it.
    """

    def __init__(
        self, run: Run, storage: Storage, tokens: Tokenizer, field: str, layout: Layout
    ) -> None:
        self._run, self._storage, self._field = run, storage, field
        self._tokens, self._layout = tokens, layout
        # The index of the first sequence to return.
        self.begin = 0

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        if worker and worker.id > 0:
            return
        skipped = 0
        while True:
            length = 0
            for sequence in self._one_pass():
                length += 1
                if skipped < self.begin:
                    skipped += 1
                    continue
                yield sequence
            if not length:
                raise data.no_rows(self._run.dataset_uri)
            # After one pass its length is known, so whole passes can be skipped without reading.
            skipped += (self.begin - skipped) // length * length

    def _one_pass(self) -> Iterator[Any]:
        for text in data.texts(self._run, self._storage, self._field):
            laid = self._layout.lay(self._tokens.encode(text), self._tokens)
            yield from laid.reshape(-1, self._layout.length)
