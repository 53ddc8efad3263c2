"""The meta runner's Llama is transformers' own: logits, loss curves, exports and adapters."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import here
import llamas
import pytest
import torch
from conftest import MakeRun, meta_arguments
from processes import train

import data
from llama import Llama
from run import Run
from runners.meta_model import Plan, build, choose
from storage import Storage
from tokens import Pretrained

STEPS, LENGTH, BATCH = 50, 64, 2
ARGUMENTS: dict[str, Any] = {
    "max_steps": STEPS, "max_seq_len": LENGTH, "batch_size": BATCH, "lr": 1e-3,
    "weight_decay": 0.0, "logging_steps": 1, "save_steps": STEPS,
}  # fmt: skip


def ours(run: Run, **given: Any) -> Llama:
    """The model that a job gets, in this process."""
    arguments = meta_arguments(max_seq_len=LENGTH, **given)
    return build(choose(run, Storage({}), arguments), Plan(arguments, "cpu", 1))


def our_logits(model: Llama, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval().logits(tokens)


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    # Untrained or not, the models say something: else anything would be close.
    assert one.abs().max() > 0.5
    return torch.allclose(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", llamas.SHAPES)
def test_logits_are_those_of_transformers(tmp_path: Path, make_run: MakeRun, shape: str) -> None:
    folder = llamas.saved(tmp_path / "model", shape)
    assert (folder / "model.safetensors.index.json").exists()
    tokens = llamas.some_tokens()
    expected = llamas.logits(llamas.theirs(folder), tokens)
    assert close(our_logits(ours(make_run(model_id=str(folder))), tokens), expected)


def test_a_single_file_in_bfloat16_is_read(tmp_path: Path, make_run: MakeRun) -> None:
    folder = llamas.saved(tmp_path / "shards")
    single = tmp_path / "single"
    llamas.theirs(folder).to(torch.bfloat16).save_pretrained(single)
    here.tokenizer().save_pretrained(single)
    assert (single / "model.safetensors").exists()
    tokens = llamas.some_tokens()
    expected = llamas.logits(llamas.theirs(single), tokens)
    assert close(our_logits(ours(make_run(model_id=str(single))), tokens), expected)


@pytest.mark.parametrize("shape", llamas.SHAPES)
def test_the_loss_curve_is_that_of_the_bare_trainer(
    tmp_path: Path, dataset: Path, make_run: MakeRun, shape: str
) -> None:
    folder = llamas.saved(tmp_path / "model", shape)
    expected = bare_losses(folder, make_run(dataset_uri=f"file://{dataset}"), tmp_path)
    ended = here.run(tmp_path / "run", dataset, framework="meta", model=folder, **ARGUMENTS)
    assert ended.code == 0, ended.output
    assert expected[STEPS] < 0.8 * expected[1]
    assert ended.losses == pytest.approx(expected, rel=0.005)


def bare_losses(folder: Path, run: Run, output: Path) -> dict[int, float]:
    """The losses of transformers' own Trainer on the batches of a run, in their order."""
    import transformers

    tokens = Pretrained.load("x", folder, "model_id")
    layout = data.Layout(LENGTH, 1, packing=False)
    reader = data.text_reader(tokens, "text")
    sequences = data.read(run, Storage({}), tokens, reader, layout)
    rows = []
    for position in range(STEPS * BATCH):
        epoch, place = divmod(position, len(sequences))
        order = list(range(len(sequences)))
        random.Random(f"42/{epoch}").shuffle(order)
        row = torch.from_numpy(sequences[order[place]].copy()).long()
        filled = row == tokens.padding
        rows.append(
            {
                "input_ids": row.masked_fill(filled, tokens.end),
                "labels": row.masked_fill(filled, -100),
                "attention_mask": (~filled).long(),
            }
        )

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(rows)

    arguments = transformers.TrainingArguments(
        output_dir=str(output / "bare"), max_steps=STEPS, per_device_train_batch_size=BATCH,
        learning_rate=1e-3, lr_scheduler_type="linear", logging_steps=1, report_to=[],
        save_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    trainer = InOrder(model=llamas.theirs(folder), args=arguments, train_dataset=rows)
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {int(entry["step"]): float(entry["loss"]) for entry in history}


@pytest.mark.parametrize("shape", ["llama-3.2", "gqa-8-2"])
def test_an_export_loads_and_says_what_the_run_says(
    tmp_path: Path, dataset: Path, make_run: MakeRun, shape: str
) -> None:
    import transformers

    folder = llamas.saved(tmp_path / "model", shape)
    given = {**ARGUMENTS, "max_steps": 3, "save_hf": True}
    ended = here.run(tmp_path / "run", dataset, framework="meta", model=folder, **given)
    assert ended.code == 0, ended.output
    export = ended.checkpoints / "step-000003/hf"
    tokens = llamas.some_tokens()
    run = make_run(model_id=str(folder))
    state = str(ended.checkpoints / "step-000003.pt")
    own = our_logits(ours(run, initial_load_path=state), tokens)
    assert close(llamas.logits(llamas.theirs(export), tokens), own)
    # Three steps have changed something.
    assert not close(our_logits(ours(run), tokens), own)
    auto: Any = transformers.AutoTokenizer
    assert auto.from_pretrained(export)("ab")["input_ids"] == here.tokenizer()("ab")["input_ids"]
    assert json.loads((export / "generation_config.json").read_text())["temperature"] == 0.6


def test_many_processes_export_what_one_does(tmp_path: Path, dataset: Path) -> None:
    folder = str(llamas.saved(tmp_path / "model", "llama-3.2"))
    given = {**ARGUMENTS, "max_steps": 3, "save_hf": True, "global_batch_size": 4, "batch_size": 2}
    at = {"dataset_uri": f"file://{dataset}", "model_id": folder}
    exports = []
    for ranks in (1, 2):
        train(tmp_path / str(ranks), given, ranks=ranks, **at)
        (export,) = (tmp_path / str(ranks)).glob("runs/*/*/checkpoints/step-000003/hf")
        exports.append(llamas.logits(llamas.theirs(export), llamas.some_tokens()))
    assert close(*exports)


def test_adapters_load_with_peft(tmp_path: Path, dataset: Path, make_run: MakeRun) -> None:
    from peft import PeftModel

    folder = llamas.saved(tmp_path / "model")
    lora = {"peft_method": "lora", "lora_target_modules": ["q_proj", "o_proj", "w1", "down_proj"]}
    given = {**ARGUMENTS, **lora, "max_steps": 5, "lr": 0.02}
    ended = here.run(tmp_path / "run", dataset, framework="meta", model=folder, **given)
    assert ended.code == 0, ended.output
    own = ours(make_run(model_id=str(folder)), **lora)
    state = torch.load(ended.checkpoints / "step-000005.pt", weights_only=True)
    own.load_state_dict(state["model"])
    adapters = ended.checkpoints / "step-000005/adapters"
    loaded = PeftModel.from_pretrained(llamas.theirs(folder), adapters)
    tokens = llamas.some_tokens()
    found = llamas.logits(loaded, tokens)
    assert close(found, our_logits(own, tokens))
    assert not close(found, llamas.logits(llamas.theirs(folder), tokens))
    assert loaded.peft_config["default"].base_model_name_or_path == str(folder)


@pytest.mark.parametrize("ranks", [1, 2])
def test_new_weights_do_not_depend_on_the_processes(
    tmp_path: Path, dataset: Path, ranks: int
) -> None:
    folder = llamas.saved(tmp_path / "model", "llama-3.1")
    given = {**ARGUMENTS, "max_steps": 1, "global_batch_size": 4, "batch_size": 2, "init": "random"}
    at = {"dataset_uri": f"file://{dataset}"}
    log = train(tmp_path / "run", given, ranks=ranks, model_id=str(folder), **at)
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    alone = train(tmp_path / "alone", {**given, "init": "pretrained"}, model_id=str(folder), **at)
    assert "has no weights: it is trained from scratch" in alone
    first, other = (json.loads(next(iter(lines(text)))) for text in (log, alone))
    assert first["loss"] == pytest.approx(other["loss"], rel=1e-5)


def lines(log: str) -> list[str]:
    return [line for line in log.splitlines() if line.startswith('{"event"')]
