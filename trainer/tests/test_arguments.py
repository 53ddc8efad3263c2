"""No argument of a plugin's table is silently ignored: a runner uses it, or it is refused.

Each argument is changed alone. Either the plugin refuses the job, or the runner's own plan for the
job is another one than without the argument, or the runner refuses it in a line that names it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from service import Service
from test_command import COMMAND
from test_frameworks import Json, run_trainer

from run import Run, TrainingError
from runners import hf_model, meta_torchtitan, nemo_automodel, nemo_bridge
from runners.hf_arguments import OTHERS, HfArguments
from runners.meta_arguments import Arguments
from runners.meta_model import Plan
from train import read_command

# Other arguments that an argument requires.
WITH: dict[str, Json] = {
    "peft_method": {"restore_from": "/weights"},
    **{
        name: {"peft_method": "lora", "restore_from": "/weights"}
        for name in ("lora_rank", "lora_alpha", "lora_dropout", "lora_target_modules")
    },
    "eval_steps": {"eval_strategy": "steps"},
    "eval_batch_size": {"eval_strategy": "steps", "eval_steps": 5},
    "fsdp_offload": {"fsdp": "full_shard"},
    "dataloader_prefetch_factor": {"dataloader_workers": 2},
    "load_best_model_at_end": {"eval_strategy": "steps", "save_steps": 100},
    "save_strategy": {"eval_strategy": "steps"},
    "dataset_streaming": {"max_steps": 10},
    "optimizer_in_bwd": {"max_grad_norm": 0},
    "activation_offloading": {"activation_checkpoint": "full"},
    "warmup_ratio": {"max_steps": 1000},
    "sequence_parallel": {"tensor_parallel": 2},
    "virtual_pipeline_parallel": {"pipeline_parallel": 2},
    "min_lr": {"lr": 0.5},
    "warmup_steps": {"max_steps": 1000},
    **{
        name: {"backend": "torchtitan", "max_steps": 10}
        for name in ("tensor_parallel", "context_parallel", "pipeline_parallel", "expert_parallel")
    },
    **{
        name: {"backend": "torchtitan", "max_steps": 10, "pipeline_parallel": 2, "batch_size": 4}
        for name in ("pipeline_schedule", "pipeline_microbatch_size")
    },
    "metric_for_best_model": {"eval_strategy": "steps", "load_best_model_at_end": True},
}
# Jobs that show the only use of an argument: the plugin refuses them.
CHECKS: dict[str, Json] = {
    "bf16": {"bf16": True, "fp16": True},
    "num_moe_experts": {"num_moe_experts": 3, "expert_parallel": 2},
}
# What no runner gets.
OF_THE_PLUGIN = ("model_parameters",)
# Values other than the default, if they cannot be derived from the schema.
VALUES: Json = {
    "fp16": True, "bf16": True, "precision": "fp32", "deepspeed": "zero2", "dp_shard": 4,
    "optim": "adafactor", "global_batch_size": 16, "peft_method": "lora", "save_total_limit": 3,
    "initial_load_path": "/weights.pt", "report_to": ["tensorboard"], "eval_strategy": "steps",
    "lr_scheduler": "constant", "dp_replicate": 2, "save_strategy": "best", "num_epochs": 3,
    "eval_batch_size": 7, "overrides": ["++a.b=1"], "restore_from": "/weights",
    "expert_parallel": 2, "gpu_arch": "blackwell",
    "expert_tensor_parallel": 2,
}  # fmt: skip


def other_value(name: str, schema: Json) -> Any:
    """A value other than the default."""
    if name in VALUES:
        return VALUES[name]
    default = schema.get("default")
    if "enum" in schema:
        return next(value for value in schema["enum"] if value != default)
    by_type = {
        "boolean": not default,
        "integer": 1 + (default if isinstance(default, int) else schema.get("minimum", 0)),
        "number": 0.25,
        "array": ["linear_qkv"] if "linear_qkv" in str(schema) else ["q_proj", "k_proj"],
    }
    return by_type.get(schema["type"], "another")


def table(framework: str, tmp_path: Path) -> Json:
    shown = run_trainer(["explain", framework, "--output", "json"], tmp_path)
    properties: Json = json.loads(shown.stdout)["properties"]
    return properties


def job(framework: str, arguments: Json) -> Json:
    return {
        "framework": framework, "model_id": "llama-debug", "run_id": "run-1", "num_nodes": 2,
        "gpus_per_node": 2, "checkpoint_base_uri": "s3://bucket/runs",
        "dataset_uri": "s3://bucket/data/", "extra_args": arguments,
    }  # fmt: skip


def plan_of_hf(run: Run) -> object:
    values = HfArguments.read(run.arguments)
    others = {name: values.value(name) for name in OTHERS}
    return values.native(), others, values.needs_trl, str(hf_model.adapters(values))


def plan_of_meta(run: Run) -> object:
    read = Arguments.read(run.arguments)
    if read.backend == "torchtitan":
        return meta_torchtitan.settings(read, 4)
    return asdict(read), Plan(read, "cuda", 4).mesh


def plan_of_automodel(run: Run) -> object:
    limit = run.arguments.get("save_total_limit")
    return nemo_automodel.settings(run, run.arguments, "/data.jsonl", "/checkpoints"), limit


def plan_of_bridge(run: Run) -> object:
    settings = nemo_bridge.settings(run, run.arguments, Path("/checkpoints"), (1000, 100))
    config = nemo_bridge.configure(settings, SimpleNamespace(), run.arguments, Path("/data"))
    return str(config), run.arguments.get("save_total_limit")


# The configuration that each runner creates for a job.
PLANS = {
    "hf": ("hf", plan_of_hf),
    "meta": ("meta", plan_of_meta),
    "NeMo AutoModel": ("nemo", plan_of_automodel),
    "Megatron-Bridge": ("nemo", plan_of_bridge),
}


def planned(service: Service, framework: str, arguments: Json) -> tuple[Run, Json] | str:
    """The run and the other variables, or the reason why the plugin refuses the job."""
    shown = service.preview(job(framework, arguments))
    if "env" not in shown:
        return str(shown["detail"])
    variables = {entry["name"]: entry["value"] for entry in shown["env"]}
    # An argument that changes the estimate has been read by the plugin.
    variables["memory"] = shown.get("memory")
    environment = {
        "WORLD_SIZE": "4",
        "TRAINING_EXTRA_ARGS_JSON": variables.pop("TRAINING_EXTRA_ARGS_JSON"),
        "TRAINER_RESOLVED_ARGS_JSON": json.dumps(shown["resolved_args"]),
    }
    return read_command(COMMAND, environment), variables


def outcome(service: Service, runner: str, name: str, schema: Json, known: Json) -> str:
    """The effect of an argument."""
    framework, plan = PLANS[runner]
    base = {key: value for key, value in WITH.get(name, {}).items() if key in known and key != name}
    without = planned(service, framework, base)
    having = planned(service, framework, {**base, name: other_value(name, schema)})
    assert not isinstance(without, str), (name, without)
    if isinstance(having, str):
        return f"refused by the plugin: {having}"
    if without[1] != having[1]:
        return "read by the plugin"
    try:
        plans = [plan(run) for run, _ in (without, having)]
    except TrainingError as error:
        assert name in str(error)
        return f"refused by the runner: {error}"
    if plans[0] != plans[1]:
        return "read"
    # An argument that only validates a job is used if it can make the plugin refuse a job.
    checked = planned(service, framework, CHECKS[name]) if name in CHECKS else None
    return "read by the plugin" if isinstance(checked, str) else "ignored"


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("runner", PLANS)
def test_no_argument_is_silently_ignored(runner: str, tmp_path: Path) -> None:
    known = table(PLANS[runner][0], tmp_path)
    with Service(tmp_path) as service:
        found = {
            name: outcome(service, runner, name, schema, known) for name, schema in known.items()
        }
    assert [name for name, outcome in found.items() if outcome == "ignored"] == []
    # The plugin must accept most of them, or this test would verify nothing.
    read = [name for name, outcome in found.items() if outcome.startswith("read")]
    assert len(read) >= 0.75 * len(found), found


def uses(source: str, name: str) -> bool:
    return f".{name}" in source or f'"{name}"' in source


@pytest.mark.parametrize("framework", ["meta"])
def test_what_is_read_is_used(framework: str, tmp_path: Path) -> None:
    """Verifies that a field that no code uses would be detected."""
    folder = Path(__file__).parents[1] / "runners"
    code = "".join(
        file.read_text() for file in folder.glob(f"{framework}*.py") if "arguments" not in file.name
    )
    arguments = (folder / "meta_arguments.py").read_text().partition("def read")[2]
    names = [name for name in table(framework, tmp_path) if name not in OF_THE_PLUGIN]
    assert [name for name in names if not uses(code + arguments, name)] == []
