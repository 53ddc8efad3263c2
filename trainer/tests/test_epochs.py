"""The number of processes affects the loss curve of hf only at the end of an epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from processes import train

# Both have global batches of eight. The last one of an epoch is incomplete.
SHAPES = ((1, 8), (4, 2))


def curves(tmp_path: Path, dataset: Path, **more: Any) -> tuple[list[float], list[float]]:
    """The losses with one process and with four."""
    found = []
    for processes, batch in SHAPES:
        arguments = {
            "num_epochs": 2, "lr": 0.004, "max_seq_len": 64, "batch_size": batch,
            "logging_steps": 1, "save_strategy": "no", **more,
        }  # fmt: skip
        log = train(
            tmp_path / f"{processes}-processes",
            arguments,
            ranks=processes,
            nodes=2 if processes > 1 else 1,
            framework="hf",
            dataset_uri=f"file://{dataset}",
        )
        lines = [json.loads(line) for line in log.splitlines() if line.startswith('{"event"')]
        found.append([line["loss"] for line in lines])
    one, four = found
    assert len(one) == len(four) > 40
    return one, four


def test_only_the_steps_around_a_short_batch_depend_on_the_processes(
    tmp_path: Path, dataset: Path
) -> None:
    one, four = curves(tmp_path, dataset)
    end = len(one) // 2
    # With several processes, accelerate fills the batch with the first sequences of the epoch.
    assert one[end - 1] != pytest.approx(four[end - 1], rel=0.005)
    around = slice(end - 1, end + 1)
    del one[around], four[around]
    assert four[:-1] == pytest.approx(one[:-1], rel=0.01)


def test_without_short_batches_the_curve_is_one(tmp_path: Path, dataset: Path) -> None:
    one, four = curves(tmp_path, dataset, dataloader_drop_last=True)
    assert four == pytest.approx(one, rel=0.01)
