"""The parsers of torchrun and transformers accept the commands of the plugins."""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from random import Random
from subprocess import CompletedProcess
from typing import Any

import pytest
from torch.distributed.run import config_from_args, parse_args
from transformers import SchedulerType, TrainingArguments
from transformers.training_args import OptimizerNames

import resolved
from runners import hf_arguments

ROOT = Path(__file__).parent.parent.parent
TRAINER = ROOT / "target/release/trainer"
# Variables that the operator sets in the pod and the kubelet expands.
VARIABLES = {"$(RANK)": "0", "$(MASTER_ADDR)": "run-master-0", "$(MASTER_PORT)": "23456"}

Json = dict[str, Any]


def lines(path: str) -> list[Json]:
    return [json.loads(line) for line in (ROOT / path).read_text().splitlines()]


# Number of random jobs that both the plugin and transformers check.
JOBS = 300

GOLDEN = lines("host/tests/data/golden.jsonl")
# Rules that repeat checks of TrainingArguments, or that it should have.
RULES = [
    case
    for case in lines("snapshots/rules/hf.jsonl")
    if "H01" <= case["rule"] <= "H09" or case["rule"] == "H14"
]


def run_trainer(words: list[str], tmp_path: Path, given: str = "") -> CompletedProcess[str]:
    """Runs the `trainer` binary with the built plugins."""
    folders = ["--plugins", str(ROOT / "target/plugins"), "--data-dir", str(tmp_path)]
    return subprocess.run(
        [TRAINER, *words, *folders], input=given, capture_output=True, text=True, check=False
    )


def run_preview(request: Json, tmp_path: Path) -> CompletedProcess[str]:
    return run_trainer(["preview", "-", "--output", "json"], tmp_path, json.dumps(request))


def preview(request: Json, tmp_path: Path) -> Json:
    """The preview of a valid request."""
    done = run_preview(request, tmp_path)
    assert done.returncode == 0, done.stderr
    answer: Json = json.loads(done.stdout)
    return answer


def request(arguments: Json, **fields: Any) -> Json:
    return {
        "framework": "hf",
        "model_id": "gpt2",
        "run_id": "run-1",
        "checkpoint_base_uri": "s3://bucket/runs",
        "dataset_uri": "s3://bucket/data/",
        "extra_args": arguments,
        **fields,
    }


def native(given: Json, tmp_path: Path) -> TrainingArguments:
    values = resolved.arguments("hf", given, "gpt2", {})
    # transformers accepts bf16 on a CPU only with use_cpu.
    return TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, **hf_arguments.training_arguments(values)
    )


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: str(golden["id"]))
def test_torchrun_reads_every_golden_launch(golden: Json, tmp_path: Path) -> None:
    command = preview(golden["request"], tmp_path)["command"]
    words = [word for word in command if not word.endswith(")")]
    for word in command:
        flag, _, variable = word.partition("=")
        if variable in VARIABLES:
            words.insert(1, f"{flag}={VARIABLES[variable]}")
    arguments = parse_args(words[1:])  # type: ignore[no-untyped-call]
    nodes = golden["request"].get("num_nodes", 1)
    processes = golden["request"].get("gpus_per_node", 1)
    assert (arguments.nnodes, arguments.nproc_per_node) == (str(nodes), str(processes))
    assert (arguments.node_rank, arguments.master_port) == (0, 23456)
    assert arguments.master_addr == "run-master-0"
    assert arguments.training_script == "train.py"
    assert arguments.training_script_args == command[command.index("train.py") + 1 :]
    config, _, _ = config_from_args(arguments)
    assert (config.max_nodes, config.nproc_per_node) == (nodes, processes)


@pytest.mark.parametrize(
    "golden",
    [golden for golden in GOLDEN if golden["request"]["framework"] == "hf"],
    ids=lambda golden: str(golden["id"]),
)
def test_transformers_takes_every_golden_launch(golden: Json, tmp_path: Path) -> None:
    shown = preview(golden["request"], tmp_path)
    environment = {variable["name"]: variable["value"] for variable in shown["env"]}
    arguments = json.loads(environment["TRAINING_EXTRA_ARGS_JSON"])
    # Only the package of DeepSpeed, which needs a compiler, can parse its configuration.
    arguments.pop("deepspeed", None)
    taken = native(arguments, tmp_path)
    expected = shown["resolved_args"]
    assert taken.learning_rate == expected["lr"]
    assert taken.per_device_train_batch_size == expected["batch_size"]
    assert taken.eval_strategy == expected["eval_strategy"]
    assert taken.max_steps == expected.get("max_steps", -1)
    assert (taken.bf16, taken.fp16) == (expected["precision"] == "bf16", False)


@pytest.mark.parametrize("case", RULES, ids=lambda case: f"{case['rule']}-{case['fires']}")
def test_transformers_refuses_what_the_rules_refuse(case: Json, tmp_path: Path) -> None:
    native({name: v for name, v in case["holds"].items() if name != "deepspeed"}, tmp_path)
    expected = case.get("transformers", "refuses")
    if expected == "needs deepspeed":
        # TrainingArguments checks first whether the package is installed.
        with pytest.raises(PackageNotFoundError, match="deepspeed"):
            native(case["fires"], tmp_path)
        return
    # TrainingArguments accepts it, but the Trainer would fail later, hence the rule.
    if expected == "accepts":
        native(case["fires"], tmp_path)
        return
    with pytest.raises(ValueError):
        native(case["fires"], tmp_path)


def some_value(schema: Json, random: Random) -> Any:
    """A value that the schema accepts, often a limit."""
    if "enum" in schema:
        return random.choice(schema["enum"])
    low: Any = schema.get("minimum", schema.get("exclusiveMinimum"))
    high: Any = schema.get("maximum", schema.get("exclusiveMaximum"))
    if schema["type"] == "boolean":
        return random.random() < 0.5
    if schema["type"] == "integer":
        return random.choice([low, low + 1, 3 * low + 7, 100, high])
    if schema["type"] == "number":
        ends = [schema[end] for end in ("minimum", "maximum") if end in schema]
        return random.choice([*ends, low + (high - low) / 1000, (low + high) / 2])
    return schema["examples"][0]


def test_transformers_takes_what_the_plugin_accepts(tmp_path: Path) -> None:
    shown = run_trainer(["explain", "hf", "--output", "json"], tmp_path)
    schema = json.loads(shown.stdout)["properties"]
    # Only the package of DeepSpeed can parse its configuration.
    names = sorted(set(schema) - {"deepspeed"})
    random = Random(1)
    accepted = 0
    for _ in range(JOBS):
        some = random.sample(names, random.randint(1, 5))
        given = {name: some_value(schema[name], random) for name in some}
        done = run_preview(request(given, gpus_per_node=2), tmp_path)
        if done.returncode:
            assert done.stderr.startswith("error[")
            continue
        environment = {entry["name"]: entry["value"] for entry in json.loads(done.stdout)["env"]}
        native(json.loads(environment["TRAINING_EXTRA_ARGS_JSON"]), tmp_path)
        accepted += 1
    assert accepted > JOBS / 3


@pytest.mark.parametrize(
    ("argument", "names"),
    [
        ("optim", [name.value for name in OptimizerNames]),
        ("lr_scheduler", [schedule.value for schedule in SchedulerType]),
    ],
)
def test_the_choices_are_those_of_transformers(
    argument: str, names: list[str], tmp_path: Path
) -> None:
    done = run_trainer(["explain", f"hf.{argument}"], tmp_path)
    assert f"one of {', '.join(names)}\n" in done.stdout
