"""The snippets of docs/checkpoints.md load the checkpoints of real runs."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import here
import pytest
from conftest import ROOT
from processes import train

BASE: dict[str, Any] = {"max_steps": 2, "max_seq_len": 32, "batch_size": 2, "save_steps": 2}
FULL, ADAPTERS, ONE, SHARDED, BRIDGE = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs/checkpoints.md").read_text(), re.DOTALL
)


def run(snippet: str, **names: Any) -> dict[str, Any]:
    exec(snippet, names)
    return names


def test_weights_in_the_format_of_hugging_face_load(tmp_path: Path, dataset: Path) -> None:
    plain = here.run(tmp_path / "hf", dataset, **BASE).checkpoints / "step-000002"
    given = {**BASE, "save_hf": True}
    export = here.run(tmp_path / "meta", dataset, framework="meta", **given).checkpoints
    for step in (plain, export / "step-000002/hf"):
        loaded = run(FULL, step=step)
        tokens = loaded["tokenizer"]("some text", return_tensors="pt")
        assert loaded["model"](input_ids=tokens["input_ids"]).logits.isfinite().all()


def test_adapters_load(tmp_path: Path, dataset: Path) -> None:
    base = here.model(tmp_path / "base")
    ended = here.run(tmp_path / "run", dataset, model=base, peft_method="lora", **BASE)
    loaded = run(ADAPTERS, step=ended.checkpoints / "step-000002", base=base)
    assert any("lora" in name for name, _ in loaded["model"].named_parameters())


def test_weights_of_the_plain_loop_load(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = here.run(tmp_path / "one", dataset, framework="meta", **BASE)
    weights = run(ONE, step=ended.checkpoints / "step-000002.pt")["weights"]
    assert "embedding.weight" in weights
    train(tmp_path / "two", BASE, ranks=2, dataset_uri=f"file://{dataset}")
    monkeypatch.chdir(tmp_path)
    run(SHARDED, step=next(tmp_path.glob("two/runs/run-1/framework=meta/checkpoints/step-000002")))
    assert (tmp_path / "weights.pt").stat().st_size > 1_000_000


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Megatron-Bridge needs Python 3.11")
@pytest.mark.usefixtures("libraries")
def test_megatron_bridge_has_the_calls_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    # The export itself needs a GPU.
    bridge = importlib.import_module("megatron.bridge").AutoBridge
    calls: list[dict[str, Any]] = []
    signatures = {
        name: inspect.signature(getattr(bridge, name))
        for name in ("from_hf_pretrained", "export_ckpt")
    }

    def recorded(self: Any, *given: Any) -> None:
        calls.append(signatures["export_ckpt"].bind(self, *given).arguments)

    monkeypatch.setattr(bridge, "export_ckpt", recorded)
    monkeypatch.setattr(
        bridge, "from_hf_pretrained",
        lambda *given: (signatures["from_hf_pretrained"].bind(*given), bridge.__new__(bridge))[1],
    )  # fmt: skip
    run(BRIDGE, step="step", base="base")
    (call,) = calls
    assert (call["megatron_path"], call["hf_path"]) == ("step", "weights")
