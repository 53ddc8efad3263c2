"""train.py trains as the bare framework does: a grid of jobs, whole, and cut and resumed.

`TRAINING_DIFFERENTIAL=full` runs each pair of values; without it a few jobs are drawn.
"""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path
from typing import Any

import here
import pytest
from conftest import english

from differential import bare

CHOICES: dict[str, list[Any]] = {
    "batches": [(4, 1), (2, 2), (1, 4)],
    "precision": ["fp32", "bf16"],
    "peft_method": ["none", "lora"],
    "lr_scheduler": ["linear", "cosine", "constant"],
    "max_grad_norm": [1.0, 0.1],
    "dataloader_workers": [0, 2],
    "data": ["plain", "packing", "streaming"],
    "stored": ["float32", "bfloat16"],
}
Job = dict[str, Any]
FULL = os.environ.get("TRAINING_DIFFERENTIAL") == "full"


def pairwise() -> list[Job]:
    """Jobs that cover each pair of values of two choices."""
    draw = random.Random(1)
    left = {
        frozenset({(one, first), (other, second)})
        for one, other in itertools.combinations(CHOICES, 2)
        for first in CHOICES[one]
        for second in CHOICES[other]
    }
    jobs = []
    while left:
        drawn = [{name: draw.choice(values) for name, values in CHOICES.items()} for _ in range(60)]
        best = max(drawn, key=lambda job: sum(pair <= set(job.items()) for pair in left))
        covered = {pair for pair in left if pair <= set(best.items())}
        left -= covered
        if covered:
            jobs.append(best)
    return jobs


JOBS = pairwise() if FULL else random.Random(7).sample(pairwise(), 4)


def wish_of(job: Job) -> dict[str, Any]:
    same = ("precision", "peft_method", "lr_scheduler", "max_grad_norm", "dataloader_workers")
    size, parts = job["batches"]
    return {
        "max_steps": 6, "max_seq_len": 64, "lr": 0.002, "logging_steps": 1, "save_steps": 1,
        "batch_size": size, "gradient_accumulation": parts, **{name: job[name] for name in same},
        **({"packing": True} if job["data"] == "packing" else {}),
        **({"dataset_streaming": True} if job["data"] == "streaming" else {}),
    }  # fmt: skip


@pytest.mark.parametrize("job", JOBS, ids=lambda job: "-".join(map(str, job.values())))
def test_a_job_trains_as_the_bare_framework_does(tmp_path: Path, dataset: Path, job: Job) -> None:
    # Both use float32 weights, also for weights that are stored in bfloat16.
    model = here.model(tmp_path / "model", stored=job["stored"])
    given = wish_of(job)
    expected = bare.losses(model, english(), given, tmp_path / "bare")
    whole = here.run(tmp_path / "run", dataset, model=model, **given)
    assert whole.code == 0, whole.output
    assert whole.losses == pytest.approx(expected, rel=1e-4)
    # After an interruption, it continues with the same losses.
    cut = random.Random(str(job)).randint(1, 5)
    for step in range(cut + 1, 7):
        (whole.checkpoints / f"step-{step:06}.json").unlink()
    again = here.run(tmp_path / "run", dataset, model=model, resume=True, **given)
    assert again.code == 0, again.output
    rest = {step: whole.losses[step] for step in range(cut + 1, 7)}
    assert again.losses == pytest.approx(rest, rel=1e-6)
