"""Megatron-Bridge (0.3): the configuration of a job, and publishing of its checkpoints."""

from __future__ import annotations

import importlib
import math
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import session as sessions
from checkpoints import Native, name_of
from logs import Progress
from publisher import Draft
from run import Run, TrainingError
from runners import explained
from runners.nemo_arguments import (
    at_hand,
    global_batch,
    terms,
    warmup,
    warn_unsupported,
    write_rows,
)
from session import Session, all_reduce_max, barrier
from storage import reason

BRIDGE = "megatron.bridge"
# Arguments that are passed to settings of Megatron-Bridge unchanged (training/config.py).
NAMES = {
    "batch_size": "train.micro_batch_size",
    "context_parallel": "model.context_parallel_size",
    "dataloader_workers": "dataset.num_workers",
    "eval_steps": "train.eval_interval",
    "expert_parallel": "model.expert_model_parallel_size",
    "expert_tensor_parallel": "model.expert_tensor_parallel_size",
    "logging_steps": "logger.log_interval",
    "lr": "optimizer.lr",
    "lr_scheduler": "scheduler.lr_decay_style",
    "max_grad_norm": "optimizer.clip_grad",
    "max_seq_len": "model.seq_length",
    "min_lr": "optimizer.min_lr",
    "pipeline_parallel": "model.pipeline_model_parallel_size",
    # Use the schedule of the longer run instead of the one in the checkpoint.
    "resume_past_end": "scheduler.override_opt_param_scheduler",
    "save_steps": "checkpoint.save_interval",
    "seed": "rng.seed",
    "sequence_parallel": "model.sequence_parallel",
    "tensor_parallel": "model.tensor_model_parallel_size",
    "virtual_pipeline_parallel": "model.virtual_pipeline_model_parallel_size",
    "weight_decay": "optimizer.weight_decay",
}
# Its names of precisions (training/mixed_precision.py), plus fp32, which it does not define.
PRECISIONS = {
    "16-mixed": "fp16_mixed",
    "32": "fp32",
    "bf16-fp8": "bf16_with_fp8_current_scaling_mixed",
    "bf16-mixed": "bf16_mixed",
    "bf16-mxfp8": "bf16_with_mxfp8_mixed",
}
# Unsupported arguments, with the reasons. False has no effect.
REFUSED = {
    "async_save": "checkpoints are always uploaded in the background",
    "eval_batch_size": "evaluations use the batch size of the training",
    "packing": "a resumed run cannot reproduce its order of packed rows",
    "recipe": "the arguments replace a recipe, and `overrides` sets everything else",
}
# Number of rows for checks before the dataset is available.
MANY = (sys.maxsize, sys.maxsize)
# Files that its dataset builder reads (data/builders/finetuning_dataset.py).
TRAINING, VALIDATION = "training.jsonl", "validation.jsonl"
# Files that it reads to resume (training/utils/checkpoint_utils.py).
STATE, TRACKER = "train_state.pt", "latest_train_state.pt"


def settings(
    run: Run, value: Mapping[str, Any], saving: Path, rows: tuple[int, int]
) -> dict[str, Any]:
    """The settings by dotted name. `rows` are the numbers of training and evaluation rows."""
    for name, why in REFUSED.items():
        if name in run.given and value[name]:
            raise TrainingError(f"{name}: not supported with Megatron-Bridge ({why}); remove it")
    batch = global_batch(run, value)
    steps = _steps(value, batch, rows[0])
    return {
        **{dotted: value[name] for name, dotted in NAMES.items() if name in value},
        "train.global_batch_size": batch,
        "train.train_iters": steps,
        "train.eval_iters": _evaluations(batch, rows[1]) if value.get("eval_steps") else 0,
        # Megatron-Bridge needs this number to shuffle, and to find its position again.
        "dataset.max_train_samples": steps * batch,
        "scheduler.lr_warmup_iters": warmup(value, steps),
        **(_stable(steps) if value["lr_scheduler"] == "WSD" else {}),
        "scheduler.start_weight_decay": value["weight_decay"],
        "scheduler.end_weight_decay": value["weight_decay"],
        "checkpoint.save": str(saving),
        "checkpoint.load": str(saving),
        "checkpoint.pretrained_checkpoint": value.get("restore_from"),
        "tokenizer.tokenizer_model": value["tokenizer_name"],
        "mixed_precision": PRECISIONS[value["precision"]],
        **_recomputation(value["recompute_granularity"]),
        **(_sharding() if value.get("fsdp") else {}),
        **(_context() if value["context_parallel"] > 1 else {}),
    }


def _steps(value: Mapping[str, Any], batch: int, rows: int) -> int:
    if "max_steps" in value:
        return int(value["max_steps"])
    return max(1, rows * int(value["num_epochs"]) // batch)


def _evaluations(batch: int, held: int) -> int:
    """The batches of an evaluation: all evaluation rows, so that all evaluations use the same."""
    if held < batch:
        raise TrainingError(
            f"eval_steps: the evaluation data, a tenth of the dataset, does not fill a batch of "
            f"{batch}; add data, use smaller batches, or remove eval_steps"
        )
    return held // batch


def _stable(steps: int) -> dict[str, Any]:
    # Megatron-Bridge has no default for the final decay. `overrides` can change it.
    return {"scheduler.lr_wsd_decay_iters": max(1, steps // 10)}


def _recomputation(granularity: str) -> dict[str, Any]:
    if granularity == "none":
        return {}
    whole = {"model.recompute_method": "uniform", "model.recompute_num_layers": 1}
    return {
        "model.recompute_granularity": granularity,
        **(whole if granularity == "full" else {}),
    }


def _sharding() -> dict[str, Any]:
    return {
        "ddp.use_megatron_fsdp": True,
        "ddp.data_parallel_sharding_strategy": "optim_grads_params",
        "checkpoint.ckpt_format": "fsdp_dtensor",
    }


def _context() -> dict[str, Any]:
    # Otherwise a rank whose part of a sequence contains only padding would get a NaN loss.
    return {"model.calculate_per_token_loss": True, "ddp.average_in_collective": False}


def configure(settings: Mapping[str, Any], model: Any, value: Mapping[str, Any], root: Path) -> Any:
    """The configuration of Megatron-Bridge for a job whose dataset is in a folder."""
    config = importlib.import_module(f"{BRIDGE}.training.config")
    container = config.ConfigContainer(
        model=model,
        train=config.TrainingConfig(),
        optimizer=config.OptimizerConfig(optimizer="adam", use_distributed_optimizer=True),
        scheduler=config.SchedulerConfig(),
        ddp=config.DistributedDataParallelConfig(use_distributed_optimizer=True),
        dataset=_dataset(config, value, root),
        logger=config.LoggerConfig(),
        tokenizer=config.TokenizerConfig(tokenizer_type="HuggingFaceTokenizer"),
        checkpoint=config.CheckpointConfig(),
        peft=_adapters(value),
    )
    for dotted, setting in settings.items():
        *sections, name = dotted.split(".")
        section = container
        for part in sections:
            section = getattr(section, part)
        setattr(section, name, setting)
    container.mixed_precision = _precision(container.mixed_precision)
    _override(container, list(value.get("overrides") or []))
    return container


def _precision(name: str) -> Any:
    import torch

    formats = importlib.import_module(f"{BRIDGE}.training.mixed_precision")
    if name != "fp32":
        return formats.get_mixed_precision_config(name)
    # Otherwise the model keeps the type of the weights on the hub.
    kind = torch.float32
    return formats.MixedPrecisionConfig(fp32=True, params_dtype=kind, pipeline_dtype=kind)


def _override(container: Any, overrides: list[str]) -> None:
    """Applies overrides such as `++a.b=c` with the library, which would ignore unknown names."""
    for override in overrides:
        section = container
        for part in override.lstrip("+~").partition("=")[0].split("."):
            if isinstance(section, dict):
                break
            if not hasattr(section, part):
                raise TrainingError(f"overrides: {override}: Megatron-Bridge has no such setting")
            section = getattr(section, part)
    if overrides:
        own = importlib.import_module(f"{BRIDGE}.training.utils.omegaconf_utils")
        try:
            own.process_config_with_overrides(container, cli_overrides=overrides)
        except own.OverridesError as error:
            raise TrainingError(f"overrides: Megatron-Bridge rejects them: {error}") from error


def _dataset(config: Any, value: Mapping[str, Any], root: Path) -> Any:
    field, length = value["dataset_text_field"], value["max_seq_len"]
    return config.FinetuningDatasetConfig(
        dataset_root=str(root),
        seq_length=length,
        seed=value["seed"],
        # The model trains on the whole text: it is the answer, and the question is empty.
        dataset_kwargs={
            "label_key": field,
            "prompt_template": f"{{{field}}}",
            "truncation_field": field,
            "answer_only_loss": False,
        },
        do_validation=value.get("eval_steps") is not None,
        do_test=False,
    )


def _adapters(value: Mapping[str, Any]) -> Any:
    method = value["peft_method"]
    if method == "none":
        return None
    if not value.get("restore_from"):
        raise TrainingError(
            f"peft_method {method}: Megatron-Bridge also needs restore_from, a Megatron checkpoint "
            f"with the weights of the base model"
        )
    name = {"lora": "LoRA", "dora": "DoRA"}[method]
    kind = getattr(importlib.import_module(f"{BRIDGE}.peft.{method}"), name)
    modules = value.get("lora_target_modules")
    return kind(
        **({"target_modules": list(modules)} if modules else {}),
        dim=value["lora_rank"],
        alpha=value["lora_alpha"],
        dropout=value["lora_dropout"],
    )


def train(session: Session) -> None:
    """Trains one run to its end."""
    import torch

    run, arguments = session.run, dict(session.run.arguments)
    warn_unsupported(arguments)
    # Validate the arguments before downloading anything.
    settings(run, arguments, session.saving, MANY)
    if not torch.cuda.is_available():
        raise TrainingError("framework nemo needs a GPU: use framework hf or meta on a CPU")
    local = at_hand(run, session.storage)
    sessions.join(run)
    session.publisher.keep(arguments.get("save_total_limit"))
    root = run.scratch / "data"
    rows = _write(session, arguments, root)
    found = session.prepare(run.arguments, terms(run, arguments, rows))
    if found and run.is_leader:
        place(found[1], session.saving, found[0].step)
    barrier()
    pretrain = importlib.import_module(f"{BRIDGE}.training.pretrain")
    step = importlib.import_module(f"{BRIDGE}.training.gpt_step")
    model = _model(local.model_id, arguments)
    config = configure(
        settings(local, local.arguments, session.saving, rows), model, local.arguments, root
    )
    publishing = Publishing(session, found[0].step if found else 0, config.train)
    publishing.watch_saving()
    with explained(
        "Megatron-Bridge rejects the job",
        others=(FileNotFoundError,),
        has_begun=lambda: publishing.has_begun,
    ):
        pretrain.pretrain(config, step.forward_step, callbacks=publishing.callbacks())


def _write(session: Session, arguments: Mapping[str, Any], root: Path) -> tuple[int, int]:
    """Writes the rows and their index, which Megatron-Bridge creates only on the first node."""
    if session.run.is_leader:
        # Remove the index of other rows.
        shutil.rmtree(root, ignore_errors=True)
    files = [root / TRAINING, root / VALIDATION]
    batch = global_batch(session.run, arguments)
    rows = write_rows(session, arguments, *files, whole_batches_of=batch)
    if session.run.is_leader:
        index = importlib.import_module(f"{BRIDGE}.data.datasets.utils").build_index_files
        index([str(file) for file, count in zip(files, rows, strict=True) if count], ord("\n"), 1)
    return rows


def _model(model_id: str, arguments: Mapping[str, Any]) -> Any:
    """The Megatron model, with weights from Hugging Face unless restore_from is set."""
    bridge = importlib.import_module(f"{BRIDGE}.models.conversion.auto_bridge").AutoBridge
    try:
        found = bridge.from_hf_pretrained(model_id)
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"model {model_id} cannot be loaded: {reason(error)}; use a name on the hub that the "
            f"job can access, or a folder"
        ) from error
    return found.to_megatron_provider(load_weights=not arguments.get("restore_from"))


def place(path: Path, folder: Path, step: int) -> None:
    """Copies a downloaded checkpoint to where Megatron-Bridge looks, and writes its tracker."""
    target = folder / folder_of(step)
    shutil.copytree(path, target, dirs_exist_ok=True)
    shutil.copy(target / STATE, folder / TRACKER)


def folder_of(step: int) -> str:
    """The name of the folder for a step's checkpoint."""
    return f"iter_{step:07d}"


class Publishing:
    """Publishes the checkpoints of Megatron-Bridge, and stops after SIGTERM."""

    def __init__(self, session: Session, step: int, train: Any) -> None:
        self._session, self._published = session, step
        self._progress = Progress(session.run, step, train.train_iters)
        value = session.run.arguments
        self._tokens = train.global_batch_size * value["max_seq_len"]
        self._every = value["logging_steps"]
        self._first, self._last = step + 1, train.train_iters
        self._stops = False
        # Whether the first step has ended.
        self.has_begun = False

    def callbacks(self) -> Any:
        """The callbacks that run after each step."""
        manager = importlib.import_module(f"{BRIDGE}.training.callbacks").CallbackManager()
        manager.register("on_train_step_end", self.on_step_end)
        return manager

    def watch_saving(self) -> None:
        """Replaces the save function in both modules that import it."""
        for name in ("train", "pretrain"):
            module: Any = importlib.import_module(f"{BRIDGE}.training.{name}")
            module.save_checkpoint = self._publishing(module.save_checkpoint)

    def on_step_end(self, context: Any) -> None:
        """Reports progress, and makes Megatron-Bridge save the current step after SIGTERM."""
        self.has_begun = True
        # The counter is incremented after this callback.
        step = context.state.train_state.step + 1
        self._progress.count(self._tokens)
        if step % self._every == 0 or step in (self._first, self._last):
            # Only the last pipeline stage has the loss.
            losses = context.loss_dict or {}
            loss = float(losses["lm loss"].item()) if "lm loss" in losses else -math.inf
            self._progress.report(step, all_reduce_max(loss))
        # The last step is saved anyway, and the run ends.
        if step < self._last and self._session.should_stop():
            self._stops = True
            context.state.cfg.checkpoint.save_interval = 1

    def _publishing(self, save: Any) -> Any:
        def save_and_publish(state: Any, *rest: Any, **more: Any) -> None:
            step = int(state.train_state.step)
            # At the end, it saves the last step a second time.
            if step == self._published:
                return
            native = Native(self._session.saving / folder_of(step), name_of(step))
            # It creates the folder only on the first node, because it expects a shared disk.
            native.path.mkdir(parents=True, exist_ok=True)
            save(state, *rest, **more)
            barrier()
            self._session.publish(Draft(step, lambda: [native], nodes=self._session.run.nodes))
            self._published = step
            if self._stops:
                self._session.stop(step)

        return save_and_publish
