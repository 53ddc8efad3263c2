"""The launch of a training job with `{{name}}`: command, environment and checkpoint layout.

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
    "lr": {
        "type": "number",
        "exclusiveMinimum": 0,
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


class Framework(exports.Framework):
    def describe(self) -> Description:
        return Description(
            name="{{name}}",
            version="0.1.0",
            summary="{{name}}: describe here what it launches",
            args_schema=json.dumps(SCHEMA),
        )

    def plan(self, job: Job) -> LaunchPlan:
        given = json.loads(job.extra_args)
        refuse(job, given)
        defaults = {name: known["default"] for name, known in ARGUMENTS.items() if "default" in known}
        arguments = defaults | given
        layout = layout_of(job)
        return LaunchPlan(
            command=command(job, arguments, layout),
            environment=[Setting("TOKENIZERS_PARALLELISM", Text_Literal("false"))],
            layout=layout,
            resolved_args=json.dumps(arguments),
            warnings=[],
            extensions="{}",
        )


def refuse(job: Job, given: dict) -> None:
    """Checks rules that a schema cannot express. Each finding has a code and a sentence."""
    if job.num_nodes > 1 and "max_steps" not in given:
        detail = "max_steps: required for more than one node"
        raise Err([Finding("R01", "/extra_args/max_steps", detail)])


def command(job: Job, arguments: dict, layout: Layout) -> list[Text]:
    """The words of the command, run without a shell. A template can refer to pod variables."""
    words: list[Text] = [
        Text_Literal("torchrun"),
        Text_Literal(f"--nnodes={job.num_nodes}"),
        Text_Literal(f"--nproc_per_node={max(job.gpus_per_node, 1)}"),
        Text_Template("--node_rank=$(RANK)"),
        Text_Template("--master_addr=$(MASTER_ADDR)"),
        Text_Template("--master_port=$(MASTER_PORT)"),
        Text_Literal("train.py"),
    ]
    options = {
        "framework": job.framework,
        "run-id": job.run_id,
        "model-id": job.model_id,
        "dataset-uri": job.dataset_uri,
        "checkpoint-prefix": layout.prefix,
    }
    for name, value in (options | arguments).items():
        words += [Text_Literal(f"--{name}"), Text_Literal(str(value))]
    return words


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
