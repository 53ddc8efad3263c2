"""The configuration that the runner creates is valid for Megatron-Bridge itself."""

from __future__ import annotations

import importlib
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import MakeRun

import logs
import resolved
from run import Run, Terminated, TrainingError
from runners import nemo, nemo_bridge
from runners.nemo_arguments import lines
from storage import Storage

pytestmark = [
    pytest.mark.skipif(sys.version_info < (3, 11), reason="Megatron-Bridge needs Python 3.11"),
    pytest.mark.usefixtures("libraries"),
]

SHAPE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
    "num_attention_heads": 4, "num_hidden_layers": 4, "num_key_value_heads": 4, "vocab_size": 258,
    "dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture
def run_of_eight(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("WORLD_SIZE", "8")
    return make_run(framework="nemo", environment={"WORLD_SIZE": "8"})


def with_arguments(run: Run, given: dict[str, Any]) -> Run:
    values = resolved.arguments("nemo", given, run.model_id, run.environment)
    return replace(run, arguments=values, given=frozenset(given))


def bridge(module: str) -> Any:
    return importlib.import_module(f"megatron.bridge.{module}")


def configured(run: Run, root: Path = Path("/data"), **arguments: Any) -> Any:
    """The configuration of a job after the checks of Megatron-Bridge."""
    from transformers import LlamaConfig

    own = bridge("models.conversion.auto_bridge").AutoBridge.from_hf_config(LlamaConfig(**SHAPE))
    model = own.to_megatron_provider(load_weights=False)
    run = with_arguments(run, arguments)
    settings = nemo_bridge.settings(run, run.arguments, Path("/saving"), (1000, 100))
    config = nemo_bridge.configure(settings, model, run.arguments, root)
    bridge("training.config").runtime_config_update(config)
    return config


def test_it_takes_schedule_batches_and_checkpoints(run_of_eight: Run) -> None:
    config = configured(
        run_of_eight, max_steps=500, batch_size=2, gradient_accumulation=4, tensor_parallel=2,
        pipeline_parallel=2, sequence_parallel=True, lr=1e-4, min_lr=1e-5, warmup_ratio=0.1,
        eval_steps=50, save_steps=70, weight_decay=0.1, lr_scheduler="linear",
        max_grad_norm=0.5, seed=9, logging_steps=3, resume_past_end=True,
    )  # fmt: skip
    # Two replicas of four processes, two sequences each, four micro batches.
    assert config.data_parallel_size == 2
    assert (config.train.global_batch_size, config.train.micro_batch_size) == (16, 2)
    # The number of batches in the evaluation data.
    train = config.train
    assert (train.train_iters, train.eval_interval, train.eval_iters) == (500, 50, 6)
    optimizer, schedule = config.optimizer, config.scheduler
    assert (optimizer.lr, optimizer.min_lr, optimizer.clip_grad) == (1e-4, 1e-5, 0.5)
    assert (schedule.lr_decay_style, schedule.lr_warmup_steps) == ("linear", 50 * 16)
    assert (schedule.start_weight_decay, schedule.end_weight_decay) == (0.1, 0.1)
    assert schedule.override_opt_param_scheduler
    saved = config.checkpoint
    assert (saved.save, saved.load, saved.save_interval) == ("/saving", "/saving", 70)
    assert (config.rng.seed, config.logger.log_interval) == (9, 3)
    assert config.model.sequence_parallel


@pytest.mark.parametrize(
    ("precision", "bf16", "fp16", "fp8"),
    [
        ("bf16-mixed", True, False, None),
        ("16-mixed", False, True, None),
        ("32", False, False, None),
        ("bf16-fp8", True, False, "tensorwise"),
        ("bf16-mxfp8", True, False, "mxfp8"),
    ],
)
def test_it_takes_every_precision(
    run_of_eight: Run, precision: str, bf16: bool, fp16: bool, fp8: str | None
) -> None:
    config = configured(run_of_eight, precision=precision, max_steps=5)
    assert (config.model.bf16, config.model.fp16) == (bf16, fp16)
    mixed = config.mixed_precision
    assert (mixed.fp8_recipe if mixed.fp8 else None) == fp8
    # Regardless of the type of the weights on the hub.
    assert (config.model.params_dtype == torch.float32) == (precision == "32")


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "inverse-square-root", "WSD"])
def test_it_takes_every_schedule(run_of_eight: Run, schedule: str) -> None:
    config = configured(run_of_eight, lr_scheduler=schedule, max_steps=50)
    decay = config.scheduler.wsd_decay_steps
    assert decay == (5 * config.train.global_batch_size if schedule == "WSD" else None)


def test_it_takes_the_parallel_plan(run_of_eight: Run) -> None:
    model = configured(
        run_of_eight, max_steps=5, context_parallel=2, pipeline_parallel=2,
        virtual_pipeline_parallel=2, recompute_granularity="full",
    ).model  # fmt: skip
    assert (model.context_parallel_size, model.pipeline_model_parallel_size) == (2, 2)
    assert model.virtual_pipeline_model_parallel_size == 2
    assert model.calculate_per_token_loss
    assert (model.recompute_granularity, model.recompute_method) == ("full", "uniform")


def test_it_shards_with_megatron_fsdp(run_of_eight: Run) -> None:
    config = configured(run_of_eight, max_steps=5, fsdp=True)
    assert (config.ddp.use_megatron_fsdp, config.dist.use_megatron_fsdp) == (True, True)
    assert config.checkpoint.ckpt_format == "fsdp_dtensor"


def test_it_takes_adapters(run_of_eight: Run) -> None:
    config = configured(
        run_of_eight, max_steps=5, peft_method="dora", restore_from="/weights", lora_rank=4,
        lora_alpha=6, lora_target_modules=["linear_qkv"],
    )  # fmt: skip
    assert type(config.peft).__name__ == "DoRA"
    assert (config.peft.dim, config.peft.alpha) == (4, 6)
    assert config.peft.target_modules == ["linear_qkv"]
    assert config.checkpoint.pretrained_checkpoint == "/weights"


def test_overrides_reach_it(run_of_eight: Run) -> None:
    overrides = ["++train.manual_gc_interval=7", "mixed_precision.fp8_margin=3"]
    config = configured(run_of_eight, max_steps=5, overrides=overrides)
    assert config.train.manual_gc_interval == 7
    assert config.mixed_precision.fp8_margin == 3


def test_epochs_become_steps(run_of_eight: Run) -> None:
    # A thousand rows, three epochs, batches of two for each of eight processes.
    config = configured(run_of_eight, num_epochs=3, batch_size=2)
    assert config.train.train_iters == 187


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"recipe": "llama3_8b"}, "recipe: not supported with Megatron-Bridge"),
        ({"eval_batch_size": 2}, "eval_batch_size: not supported with Megatron-Bridge"),
        (
            {"async_save": True},
            "async_save: not supported with Megatron-Bridge .checkpoints are always uploaded",
        ),
        ({"packing": True}, "packing: not supported with Megatron-Bridge"),
        (
            {"eval_steps": 5, "batch_size": 20},
            "eval_steps: the evaluation data, .* does not fill a batch",
        ),
        ({"overrides": ["+train.x.=1="]}, "overrides: "),
        ({"peft_method": "lora"}, "peft_method lora: Megatron-Bridge also needs restore_from"),
        ({"overrides": ["++train.manual_cg=1"]}, "overrides: .*: Megatron-Bridge has no such"),
    ],
)
def test_what_it_lacks_is_refused(run_of_eight: Run, given: dict[str, Any], error: str) -> None:
    with pytest.raises(TrainingError, match=error):
        configured(run_of_eight, **{"max_steps": 5, **given})


def test_its_dataset_reads_the_rows(run_of_eight: Run, make_run: MakeRun, tmp_path: Path) -> None:
    from tokens import Bytes

    Bytes().pretrained().save_pretrained(tmp_path / "tokenizer")
    tokenizers = bridge("training.tokenizers.config")
    tokenizer = bridge("training.tokenizers.tokenizer").build_tokenizer(
        tokenizers.TokenizerConfig(
            tokenizer_type="HuggingFaceTokenizer", tokenizer_model=str(tmp_path / "tokenizer")
        )
    )
    data = [{"body": f"Sentence number {number}."} for number in range(90)]
    (tmp_path / "data.jsonl").write_text(lines(data))
    given = {"dataset_text_field": "body", "max_seq_len": 64, "eval_steps": 5, "max_steps": 30}
    root = tmp_path / "scratch"
    # One process reads for all eight.
    session: Any = SimpleNamespace(
        run=make_run(framework="nemo", **given, global_batch_size=8), storage=Storage({})
    )  # fmt: skip
    rows = nemo_bridge._write(session, session.run.arguments, root)
    # A tenth, truncated to whole batches.
    assert rows == (81, 8)
    # Each node has the index, which the library creates only on the first node.
    assert len(list(root.glob("*.jsonl.idx.npy"))) == 2
    run = with_arguments(run_of_eight, given)
    settings = nemo_bridge.settings(run, run.arguments, Path("/saving"), rows)
    config = nemo_bridge.configure(settings, SimpleNamespace(), run.arguments, root)
    provide = bridge("data.utils").finetuning_train_valid_test_datasets_provider
    train, held, test = provide([240, 8, 0], config.dataset, tokenizer=tokenizer)
    # The number of samples in all steps, so that the position of a step is fixed.
    assert (len(train), len(held), test) == (240, 8, None)
    texts = [tokenizer.detokenize(train[at]["answer_ids"]) for at in range(81)]
    assert len(set(texts)) == 81
    assert texts != sorted(texts, key=lambda text: int(text[16:-1]))
    assert train[7]["context_ids"] == []


def test_its_resume_finds_a_fetched_checkpoint(tmp_path: Path) -> None:
    state = bridge("training.state").TrainState(step=500)
    fetched = tmp_path / "resumed/step-000500"
    fetched.mkdir(parents=True)
    torch.save(state.state_dict(), fetched / nemo_bridge.STATE)
    saving = tmp_path / "saving"
    nemo_bridge.place(fetched, saving, 500)
    assert (saving / "iter_0000500" / nemo_bridge.STATE).exists()
    checkpointing = bridge("training.checkpointing")
    store = torch._C._distributed_c10d.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert checkpointing._resolve_checkpoint_iteration(str(saving), None) == (500, False)
    finally:
        torch.distributed.destroy_process_group()


class Recorded:
    """A session that records what is published."""

    def __init__(self, run: Run, saving: Path) -> None:
        self.run, self.saving = run, saving
        self.published: list[int] = []
        self.stopped = False

    def publish(self, draft: Any) -> None:
        (native,) = draft.write()
        assert native.path.is_dir()
        self.published.append(draft.step)

    def should_stop(self) -> bool:
        return self.stopped

    def stop(self, step: int) -> None:
        raise Terminated(str(step))


def test_each_step_is_published_once_and_a_stop_saves(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, logger=logs.PROGRESS.name)
    saved: list[int] = []
    for name in ("train", "pretrain"):
        place = bridge(f"training.{name}")
        save = lambda state, *_rest: saved.append(int(state.train_state.step))  # noqa: E731
        monkeypatch.setattr(place, "save_checkpoint", save)
    session: Any = Recorded(make_run(framework="nemo", logging_steps=2), tmp_path)
    config = SimpleNamespace(
        checkpoint=SimpleNamespace(save_interval=2),
        train=SimpleNamespace(global_batch_size=4, train_iters=7),
    )
    state = SimpleNamespace(train_state=bridge("training.state").TrainState(), cfg=config)
    publishing = nemo_bridge.Publishing(session, 0, config.train)
    publishing.watch_saving()
    callbacks = publishing.callbacks()

    def step() -> None:
        """Calls the hooks like the loop of the library (training/train.py)."""
        losses = {"lm loss": torch.tensor(2.5)}
        context = bridge("training.callbacks").CallbackContext(state, [], loss_dict=losses)
        callbacks.fire("on_train_step_end", context)
        state.train_state.step += 1
        if state.train_state.step % config.checkpoint.save_interval == 0:
            bridge("training.train").save_checkpoint(state, [])

    for _ in range(4):
        step()
    bridge("training.pretrain").save_checkpoint(state, [])
    assert saved == session.published == [2, 4]
    session.stopped = True
    with pytest.raises(Terminated, match="5"):
        step()
    assert session.published == [2, 4, 5]
    progress = [json.loads(message) for message in caplog.messages]
    assert [(line["step"], line["loss"]) for line in progress] == [(1, 2.5), (2, 2.5), (4, 2.5)]


def test_the_first_and_the_last_step_are_reported(
    make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=logs.PROGRESS.name)
    session: Any = Recorded(make_run(framework="nemo", logging_steps=10), tmp_path)
    config: Any = SimpleNamespace(global_batch_size=4, train_iters=25)
    publishing = nemo_bridge.Publishing(session, 7, config)
    for step in range(7, 25):
        state = SimpleNamespace(train_state=SimpleNamespace(step=step))
        losses = {"lm loss": torch.tensor(2.5)}
        publishing.on_step_end(SimpleNamespace(state=state, loss_dict=losses))
    reported = [json.loads(message)["step"] for message in caplog.messages]
    assert reported == [8, 10, 20, 25]


def test_the_library_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nemo, "has", lambda package: package == "nemo")
    with pytest.raises(TrainingError, match="this image has NeMo 2, which"):
        nemo.run(None)  # type: ignore[arg-type]
    monkeypatch.setattr(nemo, "has", lambda package: False)
    with pytest.raises(
        TrainingError, match="package nemo_automodel or megatron-bridge is not installed"
    ):
        nemo.run(None)  # type: ignore[arg-type]


def test_a_package_in_a_package_is_found() -> None:
    assert nemo.has("megatron.bridge")
    assert not nemo.has("megatron.nothing")
    assert not nemo.has("nothing.at.all")
