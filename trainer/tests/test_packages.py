"""A job whose image does not have a package is refused. Operators can state what images have."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import TRAINER
from test_choices import COMPANIONS, Choice, choices
from test_frameworks import request, run_preview

from runners import hf_model

sys.path.insert(0, str(TRAINER.parent / "tools"))
import packages  # type: ignore[import-not-found]

DOCKERFILE = (TRAINER / "Dockerfile").read_text()
TRAINER_IMAGE = "ghcr.io/deepfinery/trainer:latest"
REPORTERS = (
    "tensorboard", "wandb", "mlflow", "trackio", "comet_ml", "clearml", "neptune", "swanlab",
    "dvclive",
)  # fmt: skip
# Choices that need a package, and what the trainer image contains of them.
IN_TRAINER_IMAGE = {"bitsandbytes", "deepspeed", "liger-kernel", "tensorboard", "torchao"}


def stated(images: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes the operator's file."""
    file = tmp_path / "images.yaml"
    file.write_text(json.dumps({"images": images}))
    monkeypatch.setenv("TRAINER_IMAGES", str(file))


def packages_of(choice: Choice, tmp_path: Path) -> list[str]:
    """The packages that the preview of a choice misses."""
    given = {**COMPANIONS.get(choice, {}), choice[0]: choice[1]}
    if str(choice[1]).startswith(("galore_", "apollo_")):
        given["optim_target_modules"] = "all-linear"
    done = run_preview(request(given, gpus_per_node=8), tmp_path)
    refused = re.findall(r"^error\[(\w+)\]: (.+)$", done.stderr, re.MULTILINE)
    assert {code for code, _ in refused} <= {"H22"}, done.stderr
    assert bool(refused) == bool(done.returncode), done.stderr
    return [re.sub(r".*needs the package ([\w-]+): .*", r"\1", line) for _, line in refused]


def candidates(tmp_path: Path) -> list[Choice]:
    """Choices that may need a package."""
    named = {"optim", "attn_implementation", "peft_method"}
    return [
        *(one for one in choices("hf", tmp_path) if one[0] in named),
        *(("report_to", (name,)) for name in REPORTERS),
        ("deepspeed", "zero3"),
        ("use_liger_kernel", True),
    ]


def test_the_operator_states_what_an_image_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed: dict[str, Choice] = {}
    stated([{"image": "*", "packages": []}], tmp_path, monkeypatch)
    for choice in candidates(tmp_path):
        for package in packages_of(choice, tmp_path):
            needed[package] = choice
    assert len(needed) > 20
    stated([{"image": "*", "packages": list(needed)}], tmp_path, monkeypatch)
    for choice in needed.values():
        assert packages_of(choice, tmp_path) == [], choice
    monkeypatch.delenv("TRAINER_IMAGES")
    for package, choice in needed.items():
        has = package in IN_TRAINER_IMAGE
        assert packages_of(choice, tmp_path) == ([] if has else [package]), choice


def test_the_packages_of_the_service_are_those_of_the_label_and_of_the_lock() -> None:
    assert packages.labelled(DOCKERFILE) == DOCKERFILE, "run `make lock`"
    listed = (TRAINER / "packages.txt").read_text().split()
    assert listed == packages.packages((TRAINER / "lock-cuda-hashes.txt").read_text(), "3.11.7")
    assert f'"{" ".join(listed)}"' in DOCKERFILE
    assert {line.split("==")[0] for line in listed} >= IN_TRAINER_IMAGE
    of_both = packages.packages((TRAINER / "lock-hashes.txt").read_text(), "3.11.7")
    assert set(of_both) < set(listed)


@pytest.mark.parametrize(
    ("implementation", "device", "used"),
    [
        ("flash_attention_2", "cuda", "sdpa"),
        ("flash_attention_2", "cpu", "flash_attention_2"),
        ("flash_attention_3", "cuda", "flash_attention_3"),
        ("eager", "cuda", "eager"),
    ],
)
def test_pytorch_has_the_kernels_of_flash_attention_2(
    implementation: str, device: str, used: str
) -> None:
    assert hf_model.attention_of(implementation, device) == used
