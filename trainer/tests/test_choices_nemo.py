"""Both libraries of nemo accept every choice and pair of choices that a preview accepts."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import MakeRun
from test_bridge import configured, run_of_eight
from test_choices import COMPANIONS, STEPS, Choice, Json, accepted, choices

from run import Run, TrainingError
from runners import nemo_automodel, nemo_bridge

pytestmark = [
    pytest.mark.skipif(sys.version_info < (3, 11), reason="the libraries need Python 3.11"),
    pytest.mark.usefixtures("libraries"),
]
__all__ = ["run_of_eight"]

# What one library does not support. The plugin does not know which of the two an image has.
WITHOUT_AUTOMODEL = {*nemo_automodel.REFUSED, "precision", "fsdp"}
WITHOUT_BRIDGE = {*nemo_bridge.REFUSED, "peft_method"}
# Values of lists and of text with a fixed form, which the schema does not enumerate.
LISTED: list[Choice] = [
    ("lora_target_modules", ["linear_qkv"]),
    ("lora_target_modules", ["linear_fc1", "linear_fc2", "linear_proj"]),
]


def jobs(tmp_path: Path) -> Iterator[tuple[Json, Json]]:
    """Each choice and pair of choices that is accepted, and the arguments of its processes."""
    found = [*choices("nemo", tmp_path), *LISTED]
    pairs = [(one, other) for one, other in itertools.combinations(found, 2) if one[0] != other[0]]
    for chosen in (*((one,) for one in found), *pairs):
        needed = {name: value for one in chosen for name, value in companions(one).items()}
        given = {**STEPS, "batch_size": 1, **needed, **dict(chosen)}
        arguments = accepted("nemo", given, 8, tmp_path)
        if arguments is not None:
            yield given, arguments


def companions(choice: Choice) -> Json:
    if choice[0] == "lora_target_modules":
        return {"peft_method": "lora"}
    return COMPANIONS.get(choice, {}) if choice[0] == "sequence_parallel" else {}


def refusals(
    tmp_path: Path, without: set[str], set_up: Callable[[Json], object]
) -> tuple[int, list[str]]:
    """The number of jobs that are set up, and those that are refused for another reason."""
    failed, taken = [], 0
    for given, arguments in jobs(tmp_path):
        try:
            set_up(arguments)
            taken += 1
        except TrainingError as error:
            if str(error).split(maxsplit=1)[0].rstrip(":") not in without:
                failed.append(f"{given}: {error}")
        except Exception as error:
            failed.append(f"{given}: {error!r}")
    return taken, failed


def test_automodel_validates_what_a_preview_accepts(make_run: MakeRun, tmp_path: Path) -> None:
    parse = importlib.import_module("nemo_automodel.recipes._dist_utils").parse_distributed_section
    loader = importlib.import_module("nemo_automodel.components.config.loader")
    typed = importlib.import_module("nemo_automodel.recipes._typed_config")
    rates = importlib.import_module("nemo_automodel.components.optim.optimizer")

    def set_up(arguments: Json) -> None:
        run = make_run(framework="nemo", environment={"WORLD_SIZE": "8"}, **arguments)
        config = nemo_automodel.settings(run, run.arguments, "/data.jsonl", "/checkpoints")
        parse(config["distributed"])
        # These names import kernels that need a GPU.
        for section in ("model", "peft"):
            config.pop(section, None)
        recipe = typed.RecipeConfig(loader.ConfigNode(config))
        assert recipe.step_scheduler.max_steps == STEPS["max_steps"]
        assert recipe.checkpoint and recipe.dataloader and recipe.optimizer
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=2e-5)
        length = SimpleNamespace(epoch_len=None, max_steps=STEPS["max_steps"])
        (schedule,) = rates.LRSchedulerConfig(**config["lr_scheduler"]).build(optimizer, length)
        for _ in range(STEPS["max_steps"]):
            schedule.step(1)

    taken, failed = refusals(tmp_path, WITHOUT_AUTOMODEL, set_up)
    assert not "\n".join(failed)
    assert taken > 200


def test_megatron_bridge_validates_what_a_preview_accepts(
    run_of_eight: Run, tmp_path: Path
) -> None:
    taken, failed = refusals(
        tmp_path, WITHOUT_BRIDGE, lambda arguments: configured(run_of_eight, **arguments)
    )
    assert not "\n".join(failed)
    assert taken > 100
