"""A training job as `accelerate launch` starts it: the command, the environment, the layout.

The host calls `describe` once and `plan` for each job, every time in a fresh instance: there is
no file, no network, no clock, and nothing is kept between two calls.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.framework import (
    Description,
    Finding,
    Job,
    LaunchPlan,
    Layout,
    Setting,
    Text,
    Text_Literal,
    Text_Template,
)

# The arguments of this framework: JSON Schema. The host checks each request against it.
ARGUMENTS = {
    "script": {
        "type": "string",
        "pattern": r"^[A-Za-z0-9_./-]+\.py$",
        "description": "Program that accelerate runs, in the image's working directory",
        "default": "train.py",
    },
    "mixed_precision": {
        "enum": ["no", "fp16", "bf16", "fp8"],
        "description": "Precision of the computation",
        "default": "bf16",
    },
    "zero_stage": {
        "type": "integer",
        "minimum": 0,
        "maximum": 3,
        "description": "DeepSpeed ZeRO: 0 is off, 3 shards everything",
        "default": 0,
    },
    "gradient_accumulation": {
        "type": "integer",
        "minimum": 1,
        "description": "Micro steps of an optimizer step",
        "default": 1,
    },
    "lr": {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": 1,
        "description": "Learning rate",
        "default": 2e-05,
    },
    "max_steps": {
        "type": "integer",
        "minimum": 1,
        "description": "Optimizer steps to train for",
    },
}

SCHEMA = {"type": "object", "properties": ARGUMENTS, "additionalProperties": False}

# What accelerate itself takes; the rest is for the script.
LAUNCHER = ("script", "mixed_precision", "zero_stage", "gradient_accumulation")


class Framework(exports.Framework):
    def describe(self) -> Description:
        return Description(
            name="accelerate",
            version="0.1.0",
            summary="A script under Hugging Face accelerate, with DeepSpeed ZeRO where asked for",
            args_schema=json.dumps(SCHEMA),
        )

    def plan(self, job: Job) -> LaunchPlan:
        given = json.loads(job.extra_args)
        defaults = {name: known["default"] for name, known in ARGUMENTS.items() if "default" in known}
        arguments = defaults | given
        refuse(job, arguments)
        layout = layout_of(job)
        return LaunchPlan(
            command=command(job, arguments, layout),
            environment=environment(arguments),
            layout=layout,
            resolved_args=json.dumps(arguments),
            warnings=[],
            extensions="{}",
        )


def refuse(job: Job, arguments: dict) -> None:
    """What no schema can say: everything that is wrong is told at once."""
    findings = []
    if arguments["zero_stage"] > 0 and job.gpus_per_node == 0:
        detail = "zero_stage: DeepSpeed shards over GPUs, and this job has none"
        findings.append(Finding("A01", "/extra_args/zero_stage", detail))
    if arguments["mixed_precision"] in ("fp16", "fp8") and job.gpus_per_node == 0:
        detail = "mixed_precision: on CPUs it is no or bf16"
        findings.append(Finding("A02", "/extra_args/mixed_precision", detail))
    if findings:
        raise Err(findings)


def command(job: Job, arguments: dict, layout: Layout) -> list[Text]:
    """Each word by itself: no shell reads them. `$(RANK)` in a template is the pod's variable."""
    processes = job.num_nodes * max(job.gpus_per_node, 1)
    words: list[Text] = [
        Text_Literal("accelerate"),
        Text_Literal("launch"),
        Text_Literal(f"--num_machines={job.num_nodes}"),
        Text_Literal(f"--num_processes={processes}"),
        Text_Template("--machine_rank=$(RANK)"),
        Text_Template("--main_process_ip=$(MASTER_ADDR)"),
        Text_Template("--main_process_port=$(MASTER_PORT)"),
        Text_Literal(f"--mixed_precision={arguments['mixed_precision']}"),
        Text_Literal("--dynamo_backend=no"),
    ]
    words += [Text_Literal(option) for option in kind(job, arguments)]
    words.append(Text_Literal(arguments["script"]))
    options = {
        "run-id": job.run_id,
        "model-id": job.model_id,
        "dataset-uri": job.dataset_uri,
        "checkpoint-prefix": layout.prefix,
    }
    own = {name: value for name, value in arguments.items() if name not in LAUNCHER}
    for name, value in (options | own).items():
        words += [Text_Literal(f"--{name}"), Text_Literal(str(value))]
    return words


def kind(job: Job, arguments: dict) -> list[str]:
    """Which of accelerate's ways to run it is."""
    if arguments["zero_stage"] > 0:
        return [
            "--use_deepspeed",
            # Each node starts its own processes; the default would need ssh between the pods.
            "--deepspeed_multinode_launcher=standard",
            f"--zero_stage={arguments['zero_stage']}",
            f"--gradient_accumulation_steps={arguments['gradient_accumulation']}",
        ]
    if job.gpus_per_node == 0:
        return ["--cpu"]
    return ["--multi_gpu"] if job.num_nodes * job.gpus_per_node > 1 else []


def environment(arguments: dict) -> list[Setting]:
    steps = str(arguments["gradient_accumulation"])
    return [
        Setting("TOKENIZERS_PARALLELISM", Text_Literal("false")),
        Setting("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", Text_Literal(steps)),
    ]


def layout_of(job: Job) -> Layout:
    prefix = f"{job.checkpoint_base_uri}/{job.run_id}/framework={job.framework}"
    return Layout(
        prefix=prefix,
        checkpoints_uri=f"{prefix}/checkpoints",
        logs_uri=f"{prefix}/logs",
        config_uri=f"{prefix}/config",
        run_config_uri=f"{prefix}/config/run.json",
        step_pattern="step-{:06}",
    )
