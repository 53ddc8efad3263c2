"""What is generated equals its source."""

import subprocess
import sys

import pytest
from conftest import ROOT, Service

from deepfinery_trainer import Trainer
from deepfinery_trainer.generate import module

FOLDER = ROOT / "clients/python"
sys.path.insert(0, str(FOLDER))
from generate_async import MODULES, async_text  # noqa: E402


def formatted(text: str) -> str:
    run = [sys.executable, "-m", "ruff", "format", "--config", f"{FOLDER}/pyproject.toml", "-"]
    return subprocess.run(run, input=text, stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.mark.parametrize("name", MODULES)
def test_the_modules_for_asyncio_are_generated_from_the_others(name: str) -> None:
    path = FOLDER / f"src/deepfinery_trainer/async_{name}.py"
    assert path.read_text() == async_text(name), "run `python generate_async.py`"


@pytest.mark.parametrize("name", ["hf", "meta", "nemo"])
def test_the_typed_arguments_are_those_of_the_plugin(service: Service, name: str) -> None:
    with Trainer(service.url) as trainer:
        text = formatted(module(trainer.frameworks.get(name)))
    path = FOLDER / f"src/deepfinery_trainer/arguments/{name}.py"
    assert path.read_text() == text, f"run `python -m deepfinery_trainer.generate {name}`"
