"""What `{{name}}` makes of a training job: the command, the environment, the checkpoint layout.

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
    "lr": {
        "type": "number",
        "exclusiveMinimum": 0,
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


class Framework(exports.Framework):
    def describe(self) -> Description:
        return Description(
            name="{{name}}",
            version="0.1.0",
            summary="{{name}}: say here what it launches",
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
    """What no schema can say: rules across arguments, with a code and a sentence for people."""
    if job.num_nodes > 1 and "max_steps" not in given:
        detail = "max_steps: say how long several nodes are to train"
        raise Err([Finding("R01", "/extra_args/max_steps", detail)])


def command(job: Job, arguments: dict, layout: Layout) -> list[Text]:
    """Each word by itself: no shell reads them. `$(RANK)` in a template is the pod's variable."""
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
