"""The lists of options in the plugins match the pinned releases."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path

import known_options
import pytest
from torch.distributed.run import get_args_parser
from transformers import TrainingArguments

KNOWN = Path(__file__).parents[2] / "plugins/sdk/known"

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="some frameworks have no release for Python 3.10"
)


@pytest.mark.parametrize("name", known_options.LISTS)
def test_a_list_is_what_the_locked_release_has(name: str) -> None:
    written = (KNOWN / f"{name}.txt").read_text()
    assert written == known_options.listing(name), "`make known-options` writes the lists"


def names(name: str) -> set[str]:
    lines = (KNOWN / f"{name}.txt").read_text().splitlines()
    return {line.split()[0] for line in lines if not line.startswith("#")}


def test_every_training_argument_is_listed() -> None:
    assert {field.name for field in fields(TrainingArguments) if field.init} <= names("hf")


def test_every_option_of_torchrun_is_listed() -> None:
    flags = {flag for action in get_args_parser()._actions for flag in action.option_strings}
    long = {flag[2:].replace("-", "_") for flag in flags if flag.startswith("--")}
    assert long - {"help"} == names("torchrun")
