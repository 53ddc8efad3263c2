"""The launch of a training job with `accelerate launch`: command, environment and layout.

The host calls `describe` once and `plan` for each job. Each call runs in a fresh instance without
files, network or clock, and keeps no state for later calls.
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

# The arguments of this framework as JSON Schema. The host validates each request against it.
ARGUMENTS = {
    "script": {
        "type": "string",
        "pattern": r"^[A-Za-z0-9_./-]+\.py$",
        "description": "Script that accelerate runs, relative to the working directory of the image",
        "default": "train.py",
    },
    "mixed_precision": {
        "enum": ["no", "fp16", "bf16", "fp8"],
        "description": "Precision of computations",
        "default": "bf16",
    },
    "zero_stage": {
        "type": "integer",
        "minimum": 0,
        "maximum": 3,
        "description": "DeepSpeed ZeRO stage: 0 disables it, 3 shards everything",
        "default": 0,
    },
    "gradient_accumulation": {
        "type": "integer",
        "minimum": 1,
        "description": "Micro batches per optimizer step",
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
        "description": "Number of optimizer steps",
    },
}

SCHEMA = {"type": "object", "properties": ARGUMENTS, "additionalProperties": False}

# Arguments of accelerate itself. The others are passed to the script.
LAUNCHER = ("script", "mixed_precision", "zero_stage", "gradient_accumulation")


class Framework(exports.Framework):
    def describe(self) -> Description:
        return Description(
            name="accelerate",
            version="0.1.0",
            summary="A script run by Hugging Face accelerate, optionally with DeepSpeed ZeRO",
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
    """Checks rules that a schema cannot express, and reports all violations at once."""
    findings = []
    if arguments["zero_stage"] > 0 and job.gpus_per_node == 0:
        detail = "zero_stage: DeepSpeed needs GPUs; set it to 0 or request GPUs"
        findings.append(Finding("A01", "/extra_args/zero_stage", detail))
    if arguments["mixed_precision"] in ("fp16", "fp8") and job.gpus_per_node == 0:
        detail = "mixed_precision: must be no or bf16 on CPUs"
        findings.append(Finding("A02", "/extra_args/mixed_precision", detail))
    if findings:
        raise Err(findings)


def command(job: Job, arguments: dict, layout: Layout) -> list[Text]:
    """The words of the command, run without a shell. A template can refer to pod variables."""
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
    """The options that select how accelerate runs the script."""
    if arguments["zero_stage"] > 0:
        return [
            "--use_deepspeed",
            # Each node starts its own processes. The default launcher needs SSH between the pods.
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
