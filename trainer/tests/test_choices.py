"""The runners support every choice and every pair of choices that a preview accepts.

A job is set up as far as its first step: arguments, model, data, optimizer and schedule.
"""

from __future__ import annotations

import itertools
import json
import re
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRun, meta_arguments
from test_frameworks import ROOT, run_preview, run_trainer

import logs
from run import TrainingError
from runners import hf, hf_model, meta_loop, meta_torchtitan
from runners.hf_arguments import HfArguments
from runners.meta_arguments import Arguments
from runners.meta_model import Plan, choose
from session import Session
from signals import Termination

Json = dict[str, Any]
Choice = tuple[str, Any]

# Other arguments that a choice requires.
COMPANIONS: dict[Choice, Json] = {
    ("activation_offloading", True): {"activation_checkpoint": "full"},
    ("load_best_model_at_end", True): {"save_strategy": "epoch", "eval_strategy": "epoch"},
    ("lr_scheduler", "cosine_with_min_lr"): {"min_lr": 1e-6},
    ("lr_scheduler", "cosine_warmup_with_min_lr"): {"min_lr": 1e-6},
    ("lr_scheduler", "greedy"): {"eval_strategy": "epoch"},
    ("lr_scheduler", "reduce_lr_on_plateau"): {"eval_strategy": "epoch", "min_lr": 1e-6},
    ("lr_scheduler", "warmup_stable_decay"): {"decay_steps": 2},
    ("eval_on_start", True): {"eval_strategy": "epoch"},
    ("optimizer_in_bwd", True): {"max_grad_norm": 0},
    ("save_strategy", "best"): {"eval_strategy": "epoch"},
    ("sequence_parallel", True): {"tensor_parallel": 2},
}
# Values of arguments without few values, which need a package or other arguments.
LISTED: list[Choice] = [
    ("deepspeed", "zero2"),
    ("eval_on_start", True),
    ("use_liger_kernel", True),
    *(("report_to", (name,)) for name in ("all", "tensorboard", "wandb", "mlflow", "trackio")),
]
# Backends that need another train.py.
FOREIGN_BACKENDS = {"torchtune", "llama_cookbook"}
STEPS = {"max_steps": 4, "max_seq_len": 32, "batch_size": 2}


@pytest.fixture
def rows(tmp_path: Path) -> str:
    """A dataset that is both text and conversation."""
    turns = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c d"}]
    lines = [json.dumps({"text": f"row {number} " * 8, "messages": turns}) for number in range(20)]
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join(lines))
    return f"file://{file}"


def choices(framework: str, tmp_path: Path) -> list[Choice]:
    """All values of each argument with few values."""
    shown = run_trainer(["explain", framework, "--output", "json"], tmp_path)
    found: list[Choice] = []
    for name, schema in json.loads(shown.stdout)["properties"].items():
        if "enum" in schema:
            found += [(name, value) for value in schema["enum"]]
        elif schema["type"] == "boolean":
            found.append((name, True))
    return found


def pairs(chosen: list[Choice]) -> Iterator[Json]:
    """All pairs of choices of two arguments, with their required arguments."""
    for one, other in itertools.combinations(chosen, 2):
        if one[0] != other[0]:
            needed = {**COMPANIONS.get(one, {}), **COMPANIONS.get(other, {})}
            yield {**STEPS, **needed, **dict([one, other])}


@pytest.fixture(autouse=True)
def packages_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets previews know the packages of this environment, in which the runners set up the jobs."""
    installed = [
        f"{found.name}=={found.version}"
        for found in distributions(path=[sysconfig.get_path("purelib")])
    ]
    file = tmp_path / "images.yaml"
    file.write_text(json.dumps({"images": [{"image": "*", "packages": installed}]}))
    monkeypatch.setenv("TRAINER_IMAGES", str(file))


def accepted(framework: str, given: Json, gpus: int, tmp_path: Path) -> Json | None:
    """The arguments of the process, if a preview accepts them."""
    request = {
        "framework": framework,
        "model_id": "llama-debug",
        "run_id": "run-1",
        "checkpoint_base_uri": "s3://bucket/runs",
        "dataset_uri": "s3://bucket/data/",
        "gpus_per_node": gpus,
        "extra_args": given,
    }
    done = run_preview(request, tmp_path)
    if done.returncode:
        assert done.stderr.startswith("error["), done.stderr
        return None
    environment = {entry["name"]: entry["value"] for entry in json.loads(done.stdout)["env"]}
    arguments: Json = json.loads(environment["TRAINING_EXTRA_ARGS_JSON"])
    return arguments


def refusals(
    framework: str,
    gpus: int,
    tmp_path: Path,
    set_up: Callable[[Json], object],
    listed: Sequence[Choice] = (),
) -> list[str]:
    """Choices that the preview accepts but the runner refuses."""
    failed = []

    def works(given: Json) -> bool:
        arguments = accepted(framework, given, gpus, tmp_path)
        if arguments is None or arguments.get("backend") in FOREIGN_BACKENDS:
            return False
        try:
            set_up(arguments)
        except Exception as error:
            failed.append(f"{given}: {error!r}")
            return False
        return True

    found = [*choices(framework, tmp_path), *listed]
    alone = [one for one in found if works({**STEPS, **COMPANIONS.get(one, {}), one[0]: one[1]})]
    assert len(alone) > len(found) / 4
    for given in pairs(alone):
        works(given)
    return failed


def hf_set_up(make_run: MakeRun, rows: str) -> Callable[[Json], object]:
    """Sets up a job of hf as far as its first batch."""

    def set_up(arguments: Json) -> None:
        run = make_run(
            framework="hf", dataset_uri=rows, environment={"GPUS_PER_NODE": "0"}, **arguments
        )
        with Termination() as termination:
            session = Session(run, logs.start(run), termination)
            given = HfArguments.read(run.arguments)
            chosen = hf_model.choose(run, session.storage, given)
            arguments = hf.training_arguments(session, given, "cpu")
            trainer, _ = hf.build(session, given, arguments, chosen)
            trainer.get_train_dataloader()
            trainer.create_optimizer_and_scheduler(num_training_steps=4)

    return set_up


def test_hf_sets_up_what_a_preview_accepts(make_run: MakeRun, rows: str, tmp_path: Path) -> None:
    set_up = hf_set_up(make_run, rows)
    assert not "\n".join(refusals("hf", 0, tmp_path, set_up, LISTED))


def test_hf_sets_up_with_each_option_of_transformers_that_a_preview_accepts(
    make_run: MakeRun, rows: str, tmp_path: Path
) -> None:
    set_up = hf_set_up(make_run, rows)
    known = (ROOT / "plugins/sdk/known/hf.txt").read_text()
    names = re.findall(r"^(\w+) boolean$", known, re.MULTILINE)
    failed, taken = [], 0
    # The hub is a server on the network.
    for name in set(names) - {"push_to_hub"}:
        arguments = accepted("hf", {**STEPS, name: True}, 0, tmp_path)
        if arguments is None:
            continue
        try:
            set_up(arguments)
            taken += 1
        except Exception as error:
            failed.append(f"{name}: {error!r}")
    assert not "\n".join(failed)
    assert taken > 20


def test_meta_sets_up_what_a_preview_accepts(make_run: MakeRun, rows: str, tmp_path: Path) -> None:
    def set_up(arguments: Json) -> None:
        run = make_run(dataset_uri=rows, environment={"GPUS_PER_NODE": "0"}, **arguments)
        with Termination() as termination:
            session = Session(run, logs.start(run), termination)
            read = Arguments.read(run.arguments)
            meta_loop.Training(session, Plan(read, "cpu", 1), choose(run, session.storage, read))

    assert not "\n".join(refusals("meta", 0, tmp_path, set_up))


@pytest.mark.usefixtures("libraries")
def test_torchtitan_sets_up_what_a_preview_accepts(tmp_path: Path) -> None:
    # Only the machine itself can show whether the GPU supports float8.
    aside = ("backend", "float8")
    failed, taken = [], 0
    for one in choices("meta", tmp_path):
        given = {**STEPS, **COMPANIONS.get(one, {}), "backend": "torchtitan", one[0]: one[1]}
        arguments = None if one[0] in aside else accepted("meta", given, 1, tmp_path)
        if arguments is None:
            continue
        try:
            meta_torchtitan.configure(meta_arguments(**arguments), "llama-debug", 1)
            taken += 1
        except (TrainingError, ValueError, TypeError) as error:
            failed.append(f"{given}: {error}")
    assert not "\n".join(failed)
    assert taken > 10
