"""The files that hf writes in the background equal those of transformers."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from conftest import command
from torch.utils._pytree import tree_leaves

import memory
import train
from runners import hf_saving
from runners.hf_callback import Publishing

ARGUMENTS = {"max_steps": 3, "save_steps": 1, "max_seq_len": 32, "batch_size": 2, "lr": 0.01}


def trained(folder: Path, dataset: Path, model_id: str, **more: Any) -> Path:
    """Trains three steps in this process, and returns the folder with the checkpoints."""
    words = command(
        f"file://{folder}", {}, framework="hf", model_id=model_id, dataset_uri=f"file://{dataset}"
    )
    variables = {
        "TRAINING_EXTRA_ARGS_JSON": json.dumps({**ARGUMENTS, **more}),
        "TRAINING_LOCAL_ROOT": f"{folder}/scratch",
        "GPUS_PER_NODE": "0",
    }
    try:
        assert train.main(words, variables) == 0
    finally:
        logging.getLogger().handlers.clear()
    return folder / "runs/run-1/framework=hf/checkpoints"


def same(one: Path, other: Path) -> bool:
    """Whether two files have the same state."""
    if one.suffix not in (".pt", ".pth"):
        return one.read_bytes() == other.read_bytes()
    states = [tree_leaves(torch.load(path, weights_only=False)) for path in (one, other)]
    return len(states[0]) == len(states[1]) and all(
        # Scalars and strings too.
        numpy.array_equal(first, second)
        for first, second in zip(*states, strict=True)
    )


@pytest.mark.parametrize(
    ("model_id", "more"),
    # The input and output weights of GPT-2 are the same tensor.
    [
        ("llama-debug", {}),
        ("gpt2-debug", {}),
        ("llama-debug", {"peft_method": "lora"}),
        # TRL's trainer.
        ("llama-debug", {"packing": True}),
    ],
)
def test_copied_checkpoints_are_those_of_transformers(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, model_id: str, more: Any
) -> None:
    taken: list[int] = []
    publish = Publishing.on_save

    def counted(self: Publishing, *rest: Any, **named: Any) -> None:
        taken.append(len(self._trainer._writes))
        publish(self, *rest, **named)

    monkeypatch.setattr(Publishing, "on_save", counted)
    copied = trained(tmp_path / "copied", dataset, model_id, **more)
    monkeypatch.setattr(hf_saving, "available", lambda: 0)
    written = trained(tmp_path / "written", dataset, model_id, **more)
    # Weights (except adapters), optimizer and schedule, and then nothing.
    assert taken == [2 if "peft_method" in more else 3] * 3 + [0] * 3
    for step in (1, 2, 3):
        folders = [checkpoints / f"step-{step:06}" for checkpoints in (copied, written)]
        names = [sorted(path.name for path in folder.iterdir()) for folder in folders]
        assert names[0] == names[1]
        assert {"optimizer.pt", "scheduler.pt", "trainer_state.json"} < set(names[0])
        # They contain paths, speeds and times.
        shown = {"README.md", "trainer_state.json", "training_args.bin"}
        differ = [
            name for name in set(names[0]) - shown if not same(folders[0] / name, folders[1] / name)
        ]
        assert differ == []


def test_a_copy_does_not_change_and_keeps_what_is_shared() -> None:
    weights = torch.ones(3)
    taken = hf_saving.copy_of({"input": weights, "output": weights, "step": 7})
    weights.add_(1)
    assert taken["input"].tolist() == [1, 1, 1]
    assert taken["input"] is taken["output"]
    assert taken["step"] == 7


def test_scarce_memory_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"weights": torch.ones(256)}
    monkeypatch.setattr(hf_saving, "available", lambda: 2048)
    assert hf_saving.copy_of(state) is not None
    monkeypatch.setattr(hf_saving, "available", lambda: 2047)
    assert hf_saving.copy_of(state) is None


def limited(folder: Path, most: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text("700\n")
    (folder / "memory.stat").write_text("anon 100\ninactive_file 200\nslab 3\n")
    return folder


@pytest.mark.parametrize(
    ("limits", "own", "expected"),
    [
        # The usage without cached files.
        ({"": "1000"}, "0::/", 500),
        # The lowest limit applies.
        ({"pod": "1000", "pod/container": "max"}, "0::/pod/container", 500),
        ({"pod": "max", "pod/container": "900"}, "0::/pod/container", 400),
        # The path of the host, which a container does not see: its own group is the root.
        ({"": "1000"}, "0::/kubepods/pod/container", 500),
    ],
)
def test_the_tightest_limit_of_a_container_counts(
    tmp_path: Path, limits: dict[str, str], own: str, expected: int
) -> None:
    for group, most in limits.items():
        limited(tmp_path / "groups" / group, most)
    (tmp_path / "own").write_text(f"1:name=systemd:/x\n{own}\n")
    assert memory.available(tmp_path / "groups", tmp_path / "own") == expected


def test_a_limit_of_version_1_counts(tmp_path: Path) -> None:
    group = tmp_path / "groups/memory/pod"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text("1000\n")
    (group / "memory.usage_in_bytes").write_text("700\n")
    (group / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 200\n")
    (tmp_path / "own").write_text("4:memory:/pod\n0::/\n")
    assert memory.available(tmp_path / "groups", tmp_path / "own") == 500


def test_without_a_limit_the_machine_counts(tmp_path: Path) -> None:
    limited(tmp_path / "groups", "max")
    (tmp_path / "own").write_text("0::/\n")
    assert memory.available(tmp_path / "groups", tmp_path / "own") > 1 << 20
    assert memory.available(tmp_path / "groups", tmp_path / "none") > 1 << 20


class Quantized(torch.Tensor):
    """A tensor subclass, like in the state of some optimizers."""


def test_what_is_no_plain_tensor_is_left_to_transformers() -> None:
    assert hf_saving.copy_of({"state": torch.ones(2).as_subclass(Quantized)}) is None
    assert hf_saving.copy_of({"projector": object()}) is None
