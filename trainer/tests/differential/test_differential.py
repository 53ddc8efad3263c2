"""train.py trains as the bare framework does: a grid of jobs, whole, and killed and resumed.

`TRAINING_DIFFERENTIAL=full` runs each pair of choices; without it a few jobs are drawn.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import transformers

from differential import compare, runs, tolerance
from differential.figures import FIGURES
from differential.grid import Job, name_of, pairwise
from differential.runs import Inputs, Run

FULL = os.environ.get("TRAINING_DIFFERENTIAL") == "full"
# transformers 4 has jobs of its own, of hf only (see `make/test.mk`).
IS_4 = transformers.__version__.startswith("4.")
FRAMEWORKS = ("hf",) if IS_4 else ("hf", "meta")
# Each job is killed and resumed this often.
CUTS = 3 if FULL else 2 if IS_4 else 1


def jobs(framework: str) -> list[Job]:
    """The whole grid, or a sample of it."""
    found = pairwise(framework)
    return found if FULL else random.Random(4).sample(found, 1 if IS_4 else 2)


def of(framework: str) -> pytest.MarkDecorator:
    found = jobs(framework) if framework in FRAMEWORKS else []
    return pytest.mark.parametrize("job", found, ids=name_of)


def both(folder: Path, job: Job) -> tuple[Inputs, Run, str]:
    """Trains with train.py and with the bare framework. Returns the log of train.py."""
    inputs = Inputs.write(folder, job)
    run = Run(folder / "whole", job, inputs)
    started = run.start(), runs.bare(folder / "bare", job, inputs)
    for each in started:
        assert each.wait() == 0, each.log
    return inputs, run, started[0].log


@of("hf")
def test_hf_trains_as_transformers_does(tmp_path: Path, job: Job) -> None:
    inputs, run, log = both(tmp_path, job)
    saved = tmp_path / "bare/saved"
    kept = sorted(int(path.name.split("-")[1]) for path in saved.glob("checkpoint-*"))
    assert set(kept) <= set(run.steps)
    assert len(run.steps) <= len(kept) + beyond(job)
    for step in kept:
        folders = saved / f"checkpoint-{step}", run.checkpoints / f"step-{step:06}"
        aside = () if job["evaluation"] == "best" else compare.BEST
        assert compare.of_folders(*folders, aside=aside) == [], step
    state = json.loads((run.last / "trainer_state.json").read_text())
    history = {one["step"]: one["loss"] for one in state["log_history"] if "loss" in one}
    assert runs.losses(log) == pytest.approx(history, abs=1e-6)
    cut_and_compare(tmp_path, run, inputs, log)


@of("meta")
def test_meta_trains_as_a_plain_loop_around_transformers_llama(tmp_path: Path, job: Job) -> None:
    inputs, run, log = both(tmp_path, job)
    expected = json.loads((tmp_path / "bare/saved/result.json").read_text())
    near = tolerance.BARE_META[job["precision"]]
    # An evaluation is logged with 4 digits.
    for name, found, digit in (
        ("losses", runs.losses, 1e-6), ("evaluations", runs.evaluations, 1e-4)
    ):  # fmt: skip
        theirs = {int(step): loss for step, loss in expected[name].items()}
        assert found(log) == pytest.approx(theirs, rel=near.losses, abs=digit), name
    assert run.steps == kept_by_meta(job, max(runs.losses(log)))
    saved = tmp_path / "bare/saved"
    weights = compare.weights(saved), compare.weights(run.last)
    apart = compare.distance(compare.weights(inputs.model), *weights)
    FIGURES[f"bare loop of meta, {job['precision']}"].append(apart)
    assert apart < near.weights
    assert files(run.last) == files(saved) - {"result.json", "README.md"}
    cut_and_compare(tmp_path, run, inputs, log)


def kept_by_meta(job: Job, last: int) -> list[int]:
    """The steps that a run keeps: each second one and the last, up to the limit."""
    steps = sorted({*range(2, last + 1, 2), last})
    return steps[-(job["save_total_limit"] or len(steps)) :]


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def beyond(job: Job) -> int:
    """How many checkpoints a run keeps that transformers deletes.

    It keeps the best one in addition to `save_total_limit`, and always the last one.
    """
    return int(job["evaluation"] == "best" and job["save_total_limit"] is not None)


def cut_and_compare(folder: Path, whole: Run, inputs: Inputs, log: str) -> None:
    """Kills runs of a job at random moments. The resumed runs end as the whole one."""
    job, total = whole.job, whole.steps[-1]

    def cut(number: int) -> list[str]:
        draw = random.Random(f"{name_of(job)} {number}")
        run = Run(folder / f"cut-{number}", job, inputs)
        step, delay = draw.randint(1, total - 1), draw.uniform(0, 0.03)
        killed = run.start(kill=f"{step}:{delay:.4f}")
        if killed.wait() == 0:
            # The delay was longer than the rest of the run.
            shutil.rmtree(run.folder)
            killed = run.start(kill=f"{step}:0.0001")
            assert killed.wait() != 0, killed.log
        # Of three cuts, one continues with another number of processes.
        other = 3 - job["processes"] if number == 1 else job["processes"]
        resumed = run.start(processes=other, resume=True)
        assert resumed.wait() == 0, resumed.log
        if other == job["processes"]:
            return exact(whole, run)
        return near(whole, run, inputs, resumed.log, log)

    with ThreadPoolExecutor(2) as pool:
        assert [found for found in pool.map(cut, range(CUTS)) if found] == []


def exact(whole: Run, run: Run) -> list[str]:
    """What differs between all checkpoints of two runs, bit for bit."""
    FIGURES["exact"].append(0.0)
    return compare.of_folders(whole.checkpoints, run.checkpoints, aside=compare.OF_A_START)


def near(whole: Run, run: Run, inputs: Inputs, resumed: str, log: str) -> list[str]:
    """What differs by more than the tolerance for another number of processes."""
    allowed = tolerance.of_other_processes(whole.job, whole.sequences)
    losses, expected = runs.losses(resumed), runs.losses(log)
    rest = {step: loss for step, loss in expected.items() if step in losses}
    differ = []
    if losses != pytest.approx(rest, rel=allowed.losses, abs=1e-6):
        differ.append(f"losses {losses}, not {rest}")
    begin = compare.weights(inputs.model)
    apart = compare.distance(begin, compare.weights(whole.last), compare.weights(run.last))
    FIGURES[f"other processes ({allowed.reason})"].append(apart)
    return differ if apart < allowed.weights else [*differ, f"weights: {apart}"]
