"""Preview, config/run.json and the framework itself have the same arguments."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import known_defaults
import pytest
from conftest import MakeRun
from service import Service
from test_frameworks import GOLDEN, ROOT, TRAINER, preview, run_trainer, some_value

import logs
import resolved
from run import Run
from runners import hf, hf_arguments, hf_model, meta_loop
from runners.hf_arguments import HfArguments
from runners.meta_arguments import Arguments
from runners.meta_model import Plan, choose
from session import Session
from signals import Termination

Json = dict[str, Any]
# Random jobs of each framework.
JOBS = 150
# Arguments that only the plugins read, and do not pass to the process.
PLANNING = {"gpu_arch", "model_parameters", "num_moe_experts"}
# A model that a golden launch trains here, and a length that it supports.
SMALL: Json = {"model_id": "llama-debug", "num_nodes": 1, "gpus_per_node": 0}
# Golden launches that the plugins refuse on a CPU, and one that needs the package of DeepSpeed.
NEEDS_GPUS = {
    *(golden["id"] for golden in GOLDEN if golden["request"]["framework"] == "nemo"),
    "hf-05", "hf-06", "hf-08", "meta-03", "meta-04", "meta-06",
}  # fmt: skip


def test_the_defaults_are_those_of_the_plugins() -> None:
    content = (ROOT / "trainer/defaults.json").read_text()
    assert content == known_defaults.defaults(str(TRAINER)), "run `make docs`"


def without_planning(arguments: Json) -> Json:
    return {name: value for name, value in arguments.items() if name not in PLANNING}


@pytest.mark.parametrize("framework", ["hf", "meta", "nemo"])
def test_a_run_started_by_hand_has_the_arguments_of_the_plugin(
    framework: str, tmp_path: Path
) -> None:
    shown = run_trainer(["explain", framework, "--output", "json"], tmp_path)
    schema = json.loads(shown.stdout)["properties"]
    # The other integers accept more than one interval.
    usual = [name for name in sorted(schema) if "anyOf" not in schema[name]]
    random, compared = Random(2), 0
    with Service(tmp_path) as service:
        for at in range(JOBS):
            names = random.sample(usual, random.randint(0, 4))
            given = {name: some_value(schema[name], random) for name in names}
            gpus = 0 if at % 3 == 0 and framework != "nemo" else 2
            job = {
                **SMALL, "framework": framework, "run_id": "run-1", "gpus_per_node": gpus,
                "num_nodes": 2, "checkpoint_base_uri": "s3://bucket/runs",
                "dataset_uri": "s3://bucket/data/", "extra_args": given,
            }  # fmt: skip
            planned = service.preview(job)
            if "env" not in planned:
                continue
            variables = {entry["name"]: entry["value"] for entry in planned["env"]}
            typed = json.loads(variables["TRAINING_EXTRA_ARGS_JSON"])
            variables["WORLD_SIZE"] = str(2 * max(1, gpus))
            ours = resolved.arguments(framework, typed, "llama-debug", variables)
            theirs = planned["resolved_args"]
            assert without_planning(ours) == without_planning(theirs), given
            compared += 1
    assert compared > JOBS / 4


def of_hf(run: Run) -> Json:
    """The arguments of transformers for a run, by our names."""
    with Termination() as termination:
        session = Session(run, logs.start(run), termination)
        options = HfArguments.read(run.arguments)
        chosen = hf_model.choose(run, session.storage, options)
        trainer, _ = hf.build(
            session, options, hf.training_arguments(session, options, "cpu"), chosen
        )
        session.prepare(run.arguments)
    native = trainer.args
    found = {ours: getattr(native, theirs, None) for ours, theirs in hf_arguments.NATIVE.items()}
    precision = "bf16" if native.bf16 else "fp16" if native.fp16 else "fp32"
    more = {
        "precision": precision,
        "eval_strategy": native.eval_strategy,
        "eval_batch_size": native.per_device_eval_batch_size,
        "eval_steps": native.eval_steps and int(native.eval_steps),
        "max_steps": native.max_steps,
    }
    # TrainingArguments replaces "none" by an empty list, and a ratio is a share of the steps.
    return {**found, **more, "report_to": native.report_to or ["none"]}


def of_meta(run: Run) -> Json:
    """The arguments of the loop for a run."""
    with Termination() as termination:
        session = Session(run, logs.start(run), termination)
        arguments = Arguments.read(run.arguments)
        plan = Plan(arguments, "cpu", 1)
        training = meta_loop.Training(session, plan, choose(run, session.storage, arguments))
        session.prepare(run.arguments)
    groups = training.optimizers[0].param_groups
    mixed = plan.sharding()[0].param_dtype is not None
    return {
        "batch_size": arguments.batch_size,
        "gradient_accumulation": training.accumulation,
        "lr": arguments.lr,
        "weight_decay": groups[0]["weight_decay"],
        "max_steps": training.total_steps,
        "precision": "bf16-mixed" if mixed else "fp32",
    }


@pytest.mark.parametrize(
    "golden",
    [golden for golden in GOLDEN if golden["id"] not in NEEDS_GPUS],
    ids=lambda golden: str(golden["id"]),
)
def test_a_golden_launch_on_a_cpu_trains_what_its_preview_shows(
    golden: Json, tmp_path: Path, make_run: MakeRun
) -> None:
    rows = [json.dumps({"text": f"row {number} " * 200}) for number in range(200)]
    (tmp_path / "data.jsonl").write_text("\n".join(rows))
    request = {**golden["request"], **SMALL, "dataset_uri": f"file://{tmp_path}/data.jsonl"}
    planned = preview(request, tmp_path)["resolved_args"]
    framework = request["framework"]
    run = make_run(
        framework=framework,
        dataset_uri=request["dataset_uri"],
        environment={"TRAINER_RESOLVED_ARGS_JSON": json.dumps(planned), "GPUS_PER_NODE": "0"},
    )
    trained = {"hf": of_hf, "meta": of_meta}[framework](run)
    record = json.loads(Path(f"{run.config_uri[7:]}/run.json").read_text())
    assert record["resolved_args"] == planned
    shared = {name: value for name, value in trained.items() if name in planned}
    if "warmup_ratio" in planned:
        # In transformers 5, warmup_steps may be a share of the steps.
        assert shared.pop("warmup_steps") == planned["warmup_ratio"]
    assert shared == {name: planned[name] for name in shared}
    assert len(shared) >= 5
