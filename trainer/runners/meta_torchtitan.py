"""torchtitan (0.3) under `backend: torchtitan`: its own trainer, fed and published from here."""

from __future__ import annotations

import importlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import data
import dataset
import models
from checkpoints import WEIGHTS_ONLY, Native, name_of
from formats import Row
from llama import ModelConfig
from logs import Progress
from publisher import Draft
from run import Run, TrainingError
from runners import explained, meta_config
from runners.meta_arguments import Arguments
from session import Session, barrier
from storage import Storage
from weights import WeightFiles

REGISTRY = "torchtitan.models.llama3.config_registry"
# Models by our name and theirs.
MODELS = {"llama-debug": "llama3_debugmodel"}
# Arguments that torchtitan does not have, with the value that asks for nothing.
REFUSED: dict[str, Any] = {
    "optimizer_in_bwd": False, "activation_offloading": False, "assistant_only_loss": False,
}  # fmt: skip
WEIGHTS = {"bf16": "bfloat16", "fp32": "float32", "bf16-mixed": "float32"}
# What is trained on and what is held out, as torchtitan knows them.
DATASET, HELD_OUT = "job", "job-held-out"


def replicas(arguments: Arguments, world_size: int) -> int:
    """Copies of the model that see different data."""
    splits = arguments.tensor_parallel * arguments.pipeline_parallel * arguments.context_parallel
    return max(1, world_size // splits)


def settings(arguments: Arguments, world_size: int) -> dict[str, Any]:
    """Its settings by their dotted names."""
    for name, nothing in REFUSED.items():
        if getattr(arguments, name) != nothing:
            raise TrainingError(f"{name}: backend torchtitan does not have it; leave it out")
    if arguments.peft_method != "none":
        raise TrainingError("peft_method: backend torchtitan trains whole weights; leave it out")
    if arguments.max_steps is None:
        raise TrainingError("max_steps: backend torchtitan trains by steps; give them")
    steps, precision = arguments.max_steps, arguments.precision
    constant = arguments.lr_scheduler == "constant"
    return {
        "training.local_batch_size": arguments.batch_size,
        "training.global_batch_size": arguments.global_batch_size
        or arguments.batch_size * replicas(arguments, world_size) * arguments.gradient_accumulation,
        "training.seq_len": arguments.max_seq_len,
        "training.steps": steps,
        # It has no word for no clipping.
        "training.max_norm": arguments.max_grad_norm or 1e9,
        "training.enable_cpu_offload": arguments.cpu_offload,
        "training.dtype": WEIGHTS[precision],
        "training.mixed_precision_param": "float32" if precision == "fp32" else "bfloat16",
        "lr_scheduler.warmup_steps": arguments.warmup(steps),
        "lr_scheduler.decay_ratio": 0.0 if constant else None,
        "lr_scheduler.decay_type": "linear" if constant else arguments.lr_scheduler,
        "parallelism.data_parallel_replicate_degree": arguments.dp_replicate,
        "parallelism.data_parallel_shard_degree": arguments.dp_shard,
        "parallelism.tensor_parallel_degree": arguments.tensor_parallel,
        "parallelism.pipeline_parallel_degree": arguments.pipeline_parallel,
        "parallelism.context_parallel_degree": arguments.context_parallel,
        "parallelism.expert_parallel_degree": arguments.expert_parallel,
        "parallelism.pipeline_parallel_schedule": arguments.pipeline_schedule,
        "parallelism.pipeline_parallel_microbatch_size": arguments.pipeline_microbatch_size,
        "checkpoint.enable": True,
        "checkpoint.interval": arguments.save_steps,
        # The publisher counts what is kept in the store; here the two that it works on.
        "checkpoint.keep_latest_k": 2,
        "checkpoint.async_mode": arguments.async_checkpoint,
        "checkpoint.last_save_in_hf": arguments.save_hf,
        # Without weights in the format of Hugging Face a run can resume from its last step too.
        "checkpoint.last_save_model_only": arguments.save_hf,
        "checkpoint.initial_load_path": arguments.initial_load_path,
        "compile.enable": arguments.compile,
        "debug.seed": arguments.seed,
        "metrics.log_freq": arguments.logging_steps,
        "validator.enable": arguments.eval_steps is not None,
        "validator.freq": arguments.eval_steps or 10,
        "dataloader.num_workers": arguments.dataloader_workers,
        "dataloader.dataset": DATASET,
        "validator.dataloader.dataset": HELD_OUT,
    }


@dataclass(frozen=True)
class Chosen:
    """The folders of a job's model and tokenizer; torchtitan's own models have none."""

    model: Path | None
    tokenizer: Path | None


def choose(run: Run, storage: Storage, arguments: Arguments) -> Chosen:
    """Finds the model and the tokenizer of a job, before the processes meet."""
    folder = None
    if _makes(run.model_id) is None:
        scratch = arguments.init == "random" or arguments.initial_load_path
        kind = models.SHAPE if scratch else models.MODEL
        folder = models.resolve(run, storage, run.model_id, kind, known=tuple(MODELS))
    if name := run.tokenizer_id:
        return Chosen(folder, models.resolve(run, storage, name, models.TOKENIZER))
    return Chosen(folder, folder)


def _makes(model_id: str) -> Any:
    """What makes torchtitan's configuration of one of its own models."""
    registry = importlib.import_module(REGISTRY)
    return getattr(registry, MODELS.get(model_id, model_id), None)


def configure(
    arguments: Arguments, model_id: str, world_size: int, chosen: Chosen | None = None
) -> Any:
    """torchtitan's own configuration of a job."""
    chosen = chosen or Chosen(None, None)
    if chosen.model:
        config = _of_folder(arguments, model_id, chosen.model)
    else:
        config = _registered(arguments, model_id)
    for dotted, value in settings(arguments, world_size).items():
        *sections, field = dotted.split(".")
        section = config
        for part in sections:
            section = getattr(section, part)
        setattr(section, field, value)
    for group in config.optimizer.param_groups:
        group.optimizer_kwargs.update(lr=arguments.lr, weight_decay=arguments.weight_decay)
    activation = importlib.import_module("torchtitan.distributed.activation_checkpoint")
    kinds = {"full": activation.FullAC, "selective": activation.SelectiveAC}
    kind = kinds.get(arguments.activation_checkpoint)
    config.activation_checkpoint = kind.Config() if kind else None
    if chosen.tokenizer:
        config.hf_assets_path = str(chosen.tokenizer)
    if chosen.model and _starts_from(arguments, chosen.model):
        config.checkpoint.initial_load_path = str(chosen.model)
        config.checkpoint.initial_load_in_hf = True
    return config


def _registered(arguments: Arguments, model_id: str) -> Any:
    registry = importlib.import_module(REGISTRY)
    name = MODELS.get(model_id, model_id) + ("_float8" if arguments.float8 else "")
    make = getattr(registry, name, None)
    if make is None:
        known = [known for known in vars(registry) if known.startswith("llama3_")]
        raise TrainingError(f"model {name}: torchtitan does not have it; known: {', '.join(known)}")
    return make()


def _starts_from(arguments: Arguments, folder: Path) -> bool:
    """Whether a run starts from the weights of its model."""
    pretrained = arguments.init == "pretrained" and not arguments.initial_load_path
    return pretrained and WeightFiles.find(folder) is not None


def _of_folder(arguments: Arguments, model_id: str, folder: Path) -> Any:
    """The configuration of a model that torchtitan has in the shape of a folder's."""
    registry = importlib.import_module(REGISTRY)
    shape = meta_config.shape(model_id, meta_config.read(folder))
    converters = None
    if arguments.float8:
        float8 = registry.Float8LinearConverter.Config(model_compile_enabled=arguments.compile)
        converters = [float8]
    config = registry.llama3_8b()
    config.model_spec = registry.model_registry(_flavor(model_id, shape), converters=converters)
    for layer in config.model_spec.model.layers:
        _rotate(layer.attention.rope, shape)
    return config


def _flavor(model_id: str, shape: ModelConfig) -> str:
    """torchtitan's name of a shape."""
    package = importlib.import_module("torchtitan.models.llama3")
    wanted = (shape.dimension, shape.layers, shape.vocabulary)
    for name, make in package.llama3_configs.items():
        config = make(attn_backend="flex")
        if (config.dim, len(config.layers), config.vocab_size) == wanted:
            return str(name)
    raise TrainingError(
        f"model {model_id}: torchtitan has no Llama of {shape.layers} layers, dimension "
        f"{shape.dimension} and {shape.vocabulary} tokens; it has "
        f"{', '.join(package.llama3_configs)}. Use backend fsdp"
    )


def _rotate(rope: Any, shape: ModelConfig) -> None:
    rope.theta = shape.rope_base
    rope.scaling = "llama" if shape.rope_scaling else "none"
    if scaling := shape.rope_scaling:
        rope.scaling_factor = scaling.factor
        rope.low_freq_factor = scaling.low_frequency_factor
        rope.high_freq_factor = scaling.high_frequency_factor
        rope.original_max_position_embeddings = scaling.original_positions


def train(session: Session, arguments: Arguments, device: str) -> None:
    """Trains one run to completion."""
    if device != "cuda":
        raise TrainingError("backend torchtitan needs a GPU: leave backend out to train on a CPU")
    chosen = choose(session.run, session.storage, arguments)
    config = configure(arguments, session.run.model_id, session.run.world_size, chosen)
    config.dump_folder = str(session.saving)
    session.publisher.keep(arguments.save_total_limit)
    kept, held = read(session, arguments)
    _register(DATASET, kept)
    _register(HELD_OUT, held)
    # A sequence for each row that is held out, at most.
    config.validator.steps = max(1, len(held) // config.training.global_batch_size)
    batch = config.training.global_batch_size
    found = session.prepare(session.run.arguments, terms(session.run, arguments, batch, len(kept)))
    if found:
        _place(found[1], session.saving / config.checkpoint.folder, found[0].step)
    barrier()
    with explained("torchtitan refuses the job", others=(RuntimeError, OSError)):
        trainer = config.build()
    begin = found[0].step if found else 0
    _publish_from(trainer, session, session.saving / config.checkpoint.folder, begin)
    try:
        with explained("torchtitan cannot train this job"):
            trainer.train()
    finally:
        trainer.close()


def read(session: Session, arguments: Arguments) -> tuple[list[Row], list[Row]]:
    """The rows to train on, and every tenth row, which is held out where a job evaluates."""
    field = arguments.dataset_text_field
    found = [
        {"text": dataset.text_of(place, row, field)}
        for place, row in data.rows(_alone(session.run), session.storage, field)
    ]
    if not found:
        raise data.no_rows(session.run.dataset_uri)
    if not arguments.eval_steps:
        return found, []
    if len(found) < data.HELD_OUT:
        raise TrainingError(
            f"dataset {session.run.dataset_uri} has {len(found)} rows: an evaluation keeps one of "
            f"{data.HELD_OUT}, so leave eval_steps out or give more data"
        )
    kept = [row for at, row in enumerate(found, start=1) if at % data.HELD_OUT]
    return kept, found[data.HELD_OUT - 1 :: data.HELD_OUT]


def terms(run: Run, arguments: Arguments, batch: int, rows: int) -> dict[str, Any]:
    """What a run that resumes has in common with the one that saved."""
    return {
        "global_batch_size": batch,
        "max_seq_len": arguments.max_seq_len,
        "evaluation": arguments.eval_steps is not None,
        "dataset_uri": run.dataset_uri,
        "rows": rows,
        "tokenizer": run.tokenizer_id,
        "seed": arguments.seed,
    }


def _register(name: str, found: list[Row]) -> None:
    """Makes rows a dataset that torchtitan knows by name; it splits it among its ranks."""
    from datasets import Dataset

    known = importlib.import_module("torchtitan.hf_datasets")
    texts = importlib.import_module("torchtitan.hf_datasets.text_datasets")
    texts.DATASETS[name] = known.DatasetConfig(
        path=name,
        loader=lambda _path: Dataset.from_list(found),
        sample_processor=lambda sample: sample["text"],
    )


def _alone(run: Run) -> Run:
    """A run whose share of the dataset is all of it."""
    return replace(run, environment={**run.environment, "RANK": "0", "WORLD_SIZE": "1"})


def _place(path: Path, folder: Path, step: int) -> None:
    """Lays a fetched checkpoint where torchtitan looks: `step-500`, without zeros."""
    target = folder / f"step-{step}"
    folder.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copytree(path, target)


def _publish_from(trainer: Any, session: Session, folder: Path, begin: int) -> None:
    """Reports progress, publishes the checkpoints of torchtitan, and stops after SIGTERM.

    `begin` is the step to resume from. The trainer loads it later.
    """
    manager, run, training = trainer.checkpointer, session.run, trainer.config.training
    metrics = trainer.metrics_processor
    progress = Progress(run, begin, training.steps)
    save, log, should_log = manager.save, metrics.log, metrics.should_log
    counted = begin

    def log_and_report(step: int, loss: float, *rest: Any, **more: Any) -> None:
        nonlocal counted
        log(step, loss, *rest, **more)
        progress.count((step - counted) * training.global_batch_size * training.seq_len)
        counted = step
        progress.report(step, float(loss))

    def save_and_publish(step: int, last_step: bool = False) -> bool:
        stops = session.should_stop()
        if stops and not last_step:
            # Weights alone are for the end of a run: this one resumes.
            manager.last_save_in_hf = manager.last_save_model_only = False
        saved = bool(save(step, last_step=last_step or stops))
        if saved:
            manager.maybe_wait_for_saving()
            barrier()
            native = Native(folder / f"step-{step}", name_of(step))
            weights_only = last_step and manager.last_save_model_only
            metadata = {"model_id": run.model_id, WEIGHTS_ONLY: weights_only}
            session.publish(
                Draft(
                    step,
                    lambda: [native],
                    metadata,
                    discard=False,
                    nodes=run.nodes,
                )
            )
        if stops or (saved and session.should_stop()):
            session.stop(step)
        return saved

    metrics.log = log_and_report
    # The last step may be between two lines.
    metrics.should_log = lambda step: should_log(step) or step == training.steps
    manager.save = save_and_publish
