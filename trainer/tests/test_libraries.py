"""The libraries accept the configurations of the nemo and torchtitan runners."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import MakeRun, meta_arguments

from run import TrainingError
from runners import meta_torchtitan, nemo_automodel

pytestmark = [
    pytest.mark.skipif(
        sys.version_info < (3, 11), reason="torchtitan and NeMo AutoModel need Python 3.11"
    ),
    pytest.mark.usefixtures("libraries"),
]


def automodel(make_run: MakeRun, **arguments: Any) -> Any:
    """The typed configuration of AutoModel for a job."""
    run = make_run(framework="nemo", environment={"WORLD_SIZE": "4"}, **arguments)
    config = nemo_automodel.settings(run, run.arguments, "/data.jsonl", "/checkpoints")
    # These names import kernels that need a GPU.
    for section in ("model", "peft"):
        config.pop(section, None)
    loader = importlib.import_module("nemo_automodel.components.config.loader")
    typed = importlib.import_module("nemo_automodel.recipes._typed_config")
    return typed.RecipeConfig(loader.ConfigNode(config))


def test_automodel_takes_schedule_batches_and_checkpoints(make_run: MakeRun) -> None:
    recipe = automodel(
        make_run, max_steps=500, batch_size=2, gradient_accumulation=4, tensor_parallel=2, lr=1e-4,
        min_lr=1e-5, warmup_ratio=0.1, eval_steps=50, save_steps=100, weight_decay=0.1,
        async_save=True, lr_scheduler="linear",
    )  # fmt: skip
    steps = recipe.step_scheduler
    # Two replicas of two processes, two sequences each, four micro batches.
    assert (steps.global_batch_size, steps.max_steps, steps.num_epochs) == (16, 500, None)
    assert (steps.ckpt_every_steps, steps.val_every_steps) == (100, 50)
    rates = recipe.lr_scheduler
    assert (rates.lr_warmup_steps, rates.min_lr, rates.lr_decay_style) == (50, 1e-5, "linear")
    assert recipe.checkpoint.is_async
    assert str(recipe.checkpoint.checkpoint_dir) == "/checkpoints"
    assert recipe.optimizer is not None


def test_automodel_takes_data_and_its_packing(make_run: MakeRun) -> None:
    recipe = automodel(
        make_run, dataset_text_field="body", max_seq_len=512, packing=True, dataloader_workers=3,
        eval_steps=5, eval_batch_size=7, seed=9,
    )  # fmt: skip
    loader = recipe.dataloader
    assert loader.dataset_config.column_mapping == {"answer": "body"}
    assert loader.dataset_config.seq_length == 512
    assert (loader.packing.packed_sequence_size, loader.num_workers, loader.seed) == (512, 3, 9)
    assert recipe.validation_dataloaders["default"].batch_size == 7


def test_automodel_takes_the_parallel_plan(make_run: MakeRun) -> None:
    parse = importlib.import_module("nemo_automodel.recipes._dist_utils").parse_distributed_section
    run = make_run(
        framework="nemo", environment={"WORLD_SIZE": "16"}, tensor_parallel=2, pipeline_parallel=2,
        context_parallel=2, expert_parallel=2, sequence_parallel=True, recompute_granularity="full",
    )  # fmt: skip
    config = nemo_automodel.settings(run, run.arguments, "/data.jsonl", "/checkpoints")
    section = config["distributed"]
    parsed = parse(section)
    assert [parsed[f"{axis}_size"] for axis in ("tp", "pp", "cp", "ep")] == [2, 2, 2, 2]
    assert parsed["strategy_config"].sequence_parallel
    assert parsed["activation_checkpointing"]


def test_automodel_resumes_from_where_its_link_points(tmp_path: Path) -> None:
    base = importlib.import_module("nemo_automodel.components.checkpoint.utils")
    assert base
    fetched = tmp_path / "resumed/step-000020"
    (fetched / "model").mkdir(parents=True)
    (fetched / "model/shard").write_text("x")
    nemo_automodel.place(fetched, tmp_path / "checkpoints", "epoch_1_step_20")
    link = tmp_path / "checkpoints/LATEST"
    assert link.resolve().name == "epoch_1_step_20"
    assert (link / "model/shard").read_text() == "x"


@pytest.mark.parametrize("precision", ["32", "bf16-mixed", "bf16-fp8"])
def test_automodel_has_float32_weights_and_computes_in_what_is_asked(
    make_run: MakeRun, precision: str
) -> None:
    import torch

    parse = importlib.import_module("nemo_automodel.recipes._dist_utils").parse_distributed_section
    run = make_run(framework="nemo", environment={"WORLD_SIZE": "2"}, precision=precision)
    config = nemo_automodel.settings(run, run.arguments, "/data.jsonl", "/checkpoints")
    assert config["model"]["torch_dtype"] == "float32"
    policy = parse(config["distributed"])["strategy_config"].mp_policy
    assert policy.param_dtype == (torch.float32 if precision == "32" else torch.bfloat16)
    assert policy.reduce_dtype == torch.float32


@pytest.mark.parametrize(
    "given",
    [
        {"lr_scheduler": "WSD", "max_steps": 10},
        {"lr_scheduler": "cosine", "max_steps": 10, "warmup_ratio": 0.95},
        {"lr_scheduler": "linear", "max_steps": 1, "warmup_ratio": 0.5},
    ],
)
def test_automodel_has_every_schedule(make_run: MakeRun, given: dict[str, Any]) -> None:
    import torch

    steps = importlib.import_module("nemo_automodel.components.optim.optimizer")
    run = make_run(framework="nemo", **given)
    settings = nemo_automodel.settings(run, run.arguments, "/data.jsonl", "/checkpoints")
    config = settings["lr_scheduler"]
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=2e-5)
    length = SimpleNamespace(epoch_len=None, max_steps=given["max_steps"])
    (rates,) = steps.LRSchedulerConfig(**config).build(optimizer, length)
    for _ in range(given["max_steps"]):
        rates.step(1)
    assert optimizer.param_groups[0]["lr"] <= 2e-5


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"lr_scheduler": "WSD"}, "lr_scheduler WSD: NeMo AutoModel also needs max_steps"),
        ({"recipe": "llama3_8b"}, "recipe: not supported by NeMo AutoModel"),
        (
            {"precision": "16-mixed"},
            "precision 16-mixed: not supported by NeMo AutoModel; use bf16-mixed or 32",
        ),
        ({"virtual_pipeline_parallel": 2}, "virtual_pipeline_parallel: not supported by NeMo"),
        ({"warmup_ratio": 0.1}, "warmup_ratio: NeMo AutoModel also needs max_steps"),
        ({"overrides": ["~a.b"]}, "overrides: ~a.b: NeMo AutoModel cannot remove"),
    ],
)
def test_what_automodel_lacks_is_refused(
    make_run: MakeRun, given: dict[str, Any], error: str
) -> None:
    with pytest.raises(TrainingError, match=error):
        automodel(make_run, **given)


def test_overrides_reach_automodel(make_run: MakeRun) -> None:
    recipe = automodel(make_run, overrides=["++step_scheduler.gc_every_steps=7"])
    assert recipe.step_scheduler.gc_every_steps == 7


def test_torchtitan_takes_a_job() -> None:
    given = meta_arguments(
        max_steps=700, lr=1e-4, weight_decay=0.2, batch_size=2, gradient_accumulation=3,
        tensor_parallel=2, activation_checkpoint="full", eval_steps=30, save_steps=50, compile=True,
        seed=9, warmup_ratio=0.1, lr_scheduler="cosine", async_checkpoint="async",
        max_seq_len=512, cpu_offload=True, precision="bf16", backend="torchtitan",
    )  # fmt: skip
    config = meta_torchtitan.configure(given, "llama-debug", 4)
    training = config.training
    assert (training.steps, training.local_batch_size, training.global_batch_size) == (700, 2, 12)
    assert (training.seq_len, training.dtype, training.enable_cpu_offload) == (
        512,
        "bfloat16",
        True,
    )
    assert (config.lr_scheduler.warmup_steps, config.lr_scheduler.decay_type) == (70, "cosine")
    assert config.optimizer.param_groups[0].optimizer_kwargs["lr"] == 1e-4
    assert config.optimizer.param_groups[0].optimizer_kwargs["weight_decay"] == 0.2
    assert config.parallelism.tensor_parallel_degree == 2
    assert (config.checkpoint.interval, config.checkpoint.async_mode) == (50, "async")
    # The last step can be resumed too.
    assert not config.checkpoint.last_save_model_only
    assert type(config.activation_checkpoint).__qualname__ == "FullAC.Config"
    assert (config.validator.enable, config.validator.freq) == (True, 30)
    assert (config.compile.enable, config.debug.seed) == (True, 9)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"optimizer_in_bwd": True}, "optimizer_in_bwd: backend torchtitan does not have it"),
        ({"activation_offloading": True}, "activation_offloading: backend torchtitan"),
        ({"peft_method": "lora"}, "peft_method: backend torchtitan trains whole weights"),
        ({"max_steps": None}, "max_steps: backend torchtitan trains by steps"),
    ],
)
def test_what_torchtitan_lacks_is_refused(given: dict[str, Any], error: str) -> None:
    with pytest.raises(TrainingError, match=error):
        meta_torchtitan.configure(meta_arguments(**{"max_steps": 5, **given}), "llama-debug", 1)
    with pytest.raises(
        TrainingError, match="torchtitan does not have it; known: llama3_debugmodel"
    ):
        meta_torchtitan.configure(meta_arguments(max_steps=5), "nothing", 1)
