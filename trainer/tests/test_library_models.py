"""torchtitan and NeMo AutoModel get the model that a request names, as folders of this machine."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import here
import llamas
import pytest
import torch
from conftest import MakeRun, meta_arguments

from gpu_check import SHAPE
from run import TrainingError
from runners import meta_torchtitan, nemo_automodel
from runners.meta_arguments import Arguments
from runners.nemo_arguments import at_hand
from storage import Storage

pytestmark = [
    pytest.mark.skipif(
        sys.version_info < (3, 11), reason="torchtitan and NeMo AutoModel need Python 3.11"
    ),
    pytest.mark.usefixtures("libraries"),
]
ARGUMENTS = meta_arguments(backend="torchtitan", max_steps=10, max_seq_len=512)


def folder_of(path: Path, **settings: Any) -> Path:
    """A model's folder whose weights nobody looks at."""
    from safetensors.torch import save_file

    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({**SHAPE, **settings}))
    save_file({"x": torch.zeros(1)}, path / "model.safetensors")
    here.tokenizer().save_pretrained(path)
    return path


def titan(run: Any, given: Arguments) -> Any:
    chosen = meta_torchtitan.choose(run, Storage(run.environment), given)
    return meta_torchtitan.configure(given, run.model_id, 1, chosen)


def test_torchtitan_starts_from_the_weights_of_a_name(tmp_path: Path, make_run: MakeRun) -> None:
    folder = folder_of(tmp_path / "models/meta-llama/Llama-3.2-1B")
    root = {"TRAINER_MODELS_URI": f"file://{tmp_path}/models"}
    config = titan(make_run(model_id="llama-3.2-1b", environment=root), ARGUMENTS)
    assert config.checkpoint.initial_load_in_hf
    assert config.checkpoint.initial_load_path == str(folder)
    assert config.hf_assets_path == str(folder)
    model = config.model_spec.model
    assert (model.dim, len(model.layers), model.enable_weight_tying) == (2048, 16, True)
    for layer in model.layers:
        rope = layer.attention.rope
        assert (rope.theta, rope.scaling, rope.scaling_factor) == (500000.0, "llama", 32.0)


@pytest.mark.parametrize("given", [{"init": "random"}, {"initial_load_path": "/own/weights"}])
def test_torchtitan_leaves_the_weights_where_others_are_asked_for(
    tmp_path: Path, make_run: MakeRun, given: dict[str, Any]
) -> None:
    folder = folder_of(tmp_path / "model", rope_scaling=None)
    config = titan(make_run(model_id=str(folder)), replace(ARGUMENTS, **given))
    assert not config.checkpoint.initial_load_in_hf
    assert config.checkpoint.initial_load_path == given.get("initial_load_path")
    assert config.model_spec.model.layers[0].attention.rope.scaling == "none"


def test_torchtitan_refuses_a_shape_that_it_does_not_have(
    tmp_path: Path, make_run: MakeRun
) -> None:
    folder = folder_of(tmp_path / "model", num_hidden_layers=17)
    with pytest.raises(TrainingError, match="torchtitan has no Llama of 17 layers, dimension 2048"):
        titan(make_run(model_id=str(folder)), ARGUMENTS)


def test_torchtitan_has_the_names_of_hugging_face_for_its_weights() -> None:
    package = importlib.import_module("torchtitan.models.llama3")
    adapter = importlib.import_module("torchtitan.models.llama3.state_dict_adapter")
    found = adapter.Llama3StateDictAdapter(package.model_registry("1B").model, None)
    assert "model.embed_tokens.weight" in found.from_hf_map


def test_automodel_gets_folders_for_model_and_tokenizer(tmp_path: Path, make_run: MakeRun) -> None:
    root = tmp_path / "models"
    model = llamas.saved(root / "own-model")
    here.tokenizer().save_pretrained(root / "own-tokenizer")
    run = make_run(
        framework="nemo", model_id="own-model", tokenizer_name="own-tokenizer",
        environment={"TRAINER_MODELS_URI": f"file://{root}"},
    )  # fmt: skip
    local = at_hand(run, Storage(run.environment))
    config = nemo_automodel.settings(local, local.arguments, "/data.jsonl", "/checkpoints")
    assert config["model"]["pretrained_model_name_or_path"] == str(model)
    tokenizer = {"pretrained_model_name_or_path": str(root / "own-tokenizer")}
    assert config["dataset"]["tokenizer"] == tokenizer


def test_automodel_takes_the_tokenizer_of_its_model(make_run: MakeRun) -> None:
    # Its recipe (recipes/llm/train_ft.py) does so if the dataset has no tokenizer.
    run = make_run(framework="nemo", model_id="/model")
    settings = nemo_automodel.settings(run, run.arguments, "/rows", "/saving")
    assert "tokenizer" not in settings["dataset"]
