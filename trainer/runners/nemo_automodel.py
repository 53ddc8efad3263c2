"""NeMo AutoModel (0.7): the configuration of a job, and publishing of its checkpoints."""

from __future__ import annotations

import importlib
import json
import re
import shutil
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
from session import Session, barrier

# Arguments of Megatron that AutoModel does not have, with values that have no effect.
REFUSED: dict[str, tuple[Any, ...]] = {
    "expert_tensor_parallel": (1,),
    "recipe": (),
    # AutoModel always continues a finished run if max_steps is raised.
    "resume_past_end": (False,),
    "virtual_pipeline_parallel": (1,),
}
# What its Megatron FSDP supports of arguments of FSDP2 (components/distributed/config.py).
OF_FSDP: dict[str, tuple[Any, ...]] = {
    "expert_parallel": (1,),
    "pipeline_parallel": (1,),
    "recompute_granularity": ("none", "full"),
    "sequence_parallel": (False, None),
}
# Names in AutoModel for the fused modules of Megatron.
MODULES = {
    "linear_qkv": ["*.q_proj", "*.k_proj", "*.v_proj"],
    "linear_proj": ["*.o_proj"],
    "linear_fc1": ["*.gate_proj", "*.up_proj"],
    "linear_fc2": ["*.down_proj"],
}
CHECKPOINT = re.compile(r"^epoch_(\d+)_step_(\d+)$")


def settings(
    run: Run, value: Mapping[str, Any], data_file: str, checkpoints: str
) -> dict[str, Any]:
    """The configuration of AutoModel, as in its YAML files."""
    for name, nothing in REFUSED.items():
        if name in run.given and value[name] not in nothing:
            raise TrainingError(f"{name}: not supported by NeMo AutoModel; remove it")
    batch = value["batch_size"]
    epochs = None if "max_steps" in value else value["num_epochs"]
    config: dict[str, Any] = {
        "seed": value["seed"],
        "step_scheduler": {
            "global_batch_size": global_batch(run, value),
            "local_batch_size": batch,
            "max_steps": value.get("max_steps"),
            "num_epochs": epochs,
            "ckpt_every_steps": value["save_steps"],
            "save_checkpoint_every_epoch": False,
            "val_every_steps": value.get("eval_steps"),
            "log_remote_every_steps": value["logging_steps"],
            # The session handles SIGTERM and sets the exit code.
            "preemption_signal": None,
        },
        "model": {
            "_target_": "nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained",
            "pretrained_model_name_or_path": value.get("restore_from") or run.model_id,
            # The type of the weights. The policy of FSDP sets the type of computations.
            "torch_dtype": "float32",
        },
        "distributed": _distributed(value),
        "checkpoint": {
            "enabled": True,
            "checkpoint_dir": checkpoints,
            "is_async": bool(value.get("async_save")),
            # The publisher deletes old checkpoints from the store. Here, it needs the latest two.
            "max_recent_checkpoints": 2,
        },
        "optimizer": {
            "_target_": "torch.optim.AdamW",
            "lr": value["lr"],
            "weight_decay": value["weight_decay"],
        },
        "lr_scheduler": {
            "lr_decay_style": value["lr_scheduler"],
            "lr_warmup_steps": _warmup(value),
            "min_lr": value["min_lr"],
            **_decay(value),
        },
        "clip_grad_norm": {"max_norm": value["max_grad_norm"] or None},
        "loss_fn": {"_target_": "nemo_automodel.components.loss.masked_ce.MaskedCrossEntropy"},
        "dataset": {**_dataset(data_file, value, run.tokenizer_id), "split": "train"},
        "dataloader": {
            "_target_": "torchdata.stateful_dataloader.StatefulDataLoader",
            "collate_fn": "nemo_automodel.components.datasets.utils.default_collater",
            "num_workers": value["dataloader_workers"],
        },
        "packed_sequence": {
            "packed_sequence_size": value["max_seq_len"] * bool(value.get("packing"))
        },
    }
    if value["precision"] == "16-mixed":
        raise TrainingError(
            "precision 16-mixed: not supported by NeMo AutoModel; use bf16-mixed or 32"
        )
    if value["precision"] in ("bf16-fp8", "bf16-mxfp8"):
        recipe = "rowwise" if value["precision"] == "bf16-mxfp8" else "tensorwise"
        config["fp8"] = {"enabled": True, "recipe_name": recipe}
    if value["peft_method"] != "none":
        config["peft"] = _adapters(value)
    if value.get("eval_steps"):
        config["validation_dataset"] = {
            **_dataset(f"{data_file}.held", value, run.tokenizer_id),
            "split": "train",
        }
        held = value["eval_batch_size"]
        config["validation_dataloader"] = {**config["dataloader"], "batch_size": held}
    for override in value.get("overrides") or []:
        _override(config, override)
    return config


def _dataset(file: str, value: Mapping[str, Any], tokenizer: str | None) -> dict[str, Any]:
    module = "nemo_automodel.components.datasets.llm.column_mapped_text_instruction_dataset"
    return {
        "_target_": f"{module}.ColumnMappedTextInstructionDataset",
        "path_or_dataset_id": file,
        "column_mapping": {"answer": value["dataset_text_field"]},
        "answer_only_loss_mask": False,
        "seq_length": value["max_seq_len"],
        "truncation": True,
        # Without this setting, AutoModel uses the tokenizer of the model.
        **({"tokenizer": {"pretrained_model_name_or_path": tokenizer}} if tokenizer else {}),
    }


def _adapters(value: Mapping[str, Any]) -> dict[str, Any]:
    named = value.get("lora_target_modules") or list(MODULES)
    return {
        "_target_": "nemo_automodel.components._peft.lora.PeftConfig",
        "target_modules": [theirs for name in named for theirs in MODULES.get(name, [name])],
        "dim": value["lora_rank"],
        "alpha": value["lora_alpha"],
        "dropout": value["lora_dropout"],
        "use_dora": value["peft_method"] == "dora",
    }


def _warmup(value: Mapping[str, Any]) -> int:
    if "warmup_ratio" in value and "max_steps" not in value:
        raise TrainingError(
            "warmup_ratio: NeMo AutoModel also needs max_steps to compute the number of steps"
        )
    if "max_steps" not in value:
        return int(value["warmup_steps"])
    # AutoModel needs a step after the warm-up.
    return min(warmup(value, int(value["max_steps"])), int(value["max_steps"]) - 1)


def _decay(value: Mapping[str, Any]) -> dict[str, Any]:
    """The decay of WSD, like in Megatron-Bridge. AutoModel has no default for it."""
    if value["lr_scheduler"] != "WSD":
        return {}
    if "max_steps" not in value:
        raise TrainingError(
            "lr_scheduler WSD: NeMo AutoModel also needs max_steps to place the decay"
        )
    steps = max(1, int(value["max_steps"]) // 10)
    return {"wsd_decay_steps": steps, "lr_wsd_decay_style": "exponential"}


def _distributed(value: Mapping[str, Any]) -> dict[str, Any]:
    """The strategy and the parallel plan. Megatron FSDP has fewer dimensions than FSDP2."""
    section = {
        "strategy": "megatron_fsdp" if value.get("fsdp") else "fsdp2",
        **_computing(value),
        "tp_size": value["tensor_parallel"],
        "pp_size": value["pipeline_parallel"],
        **({"pipeline": {}} if value["pipeline_parallel"] > 1 else {}),
        "cp_size": value["context_parallel"],
        "ep_size": value["expert_parallel"],
        "activation_checkpointing": {"none": False, "selective": "selective", "full": True}[
            value["recompute_granularity"]
        ],
    }
    if not value.get("fsdp"):
        return {**section, "sequence_parallel": bool(value.get("sequence_parallel"))}
    for name, possible in OF_FSDP.items():
        if value.get(name) not in possible:
            raise TrainingError(
                f"fsdp: NeMo AutoModel does not combine it with {name} {value[name]}; remove one"
            )
    return section


def _computing(value: Mapping[str, Any]) -> dict[str, Any]:
    """The computation types of FSDP2. Its default is bfloat16, whatever type the weights have."""
    if value.get("fsdp") or value["precision"] != "32":
        return {}
    return {"mp_policy": {"param_dtype": "float32", "reduce_dtype": "float32"}}


def _override(config: dict[str, Any], override: str) -> None:
    """Applies an override such as `++a.b=c` in the syntax of Hydra."""
    dotted, _, text = override.lstrip("+").partition("=")
    if dotted.startswith("~"):
        raise TrainingError(f"overrides: {override}: NeMo AutoModel cannot remove a setting")
    *sections, name = dotted.split(".")
    for section in sections:
        config = config.setdefault(section, {})
    try:
        config[name] = json.loads(text)
    except ValueError:
        config[name] = text


def train(session: Session) -> None:
    """Trains one run to its end."""
    import torch

    run, arguments = session.run, dict(session.run.arguments)
    warn_unsupported(arguments)
    file = run.scratch / "data" / "rows.jsonl"
    # Validate the arguments before downloading anything.
    settings(run, arguments, str(file), str(session.saving))
    if not torch.cuda.is_available():
        raise TrainingError("framework nemo needs a GPU: use framework hf or meta on a CPU")
    local = at_hand(run, session.storage)
    config = settings(local, local.arguments, str(file), str(session.saving))
    sessions.join(run)
    session.publisher.keep(arguments.get("save_total_limit"))
    rows = write_rows(session, arguments, file, Path(f"{file}.held"))
    found = session.prepare(run.arguments, terms(run, arguments, rows))
    if found and run.is_leader:
        place(found[1], session.saving, str(found[0].metadata.get("native_name", "")))
    barrier()
    loader = importlib.import_module("nemo_automodel.components.config.loader")
    recipes = importlib.import_module("nemo_automodel.recipes.llm.train_ft")
    with explained("NeMo AutoModel rejects the job", others=(RuntimeError, OSError)):
        recipe = recipes.TrainFinetuneRecipeForNextTokenPrediction(loader.ConfigNode(config))
        recipe.setup()
    _publish_from(recipe, session)
    with explained("NeMo AutoModel cannot train this job"):
        recipe.run_train_validation_loop()


def place(path: Path, folder: Path, native_name: str) -> None:
    """Moves a downloaded checkpoint to where AutoModel looks for it, and creates its link."""
    name = native_name if CHECKPOINT.match(native_name) else f"epoch_0_step_{int(path.name[5:])}"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(path, folder / name, dirs_exist_ok=True)
    link = folder / "LATEST"
    link.unlink(missing_ok=True)
    link.symlink_to(name)


def _publish_from(recipe: Any, session: Session) -> None:
    """Reports progress, publishes each checkpoint under its step, and stops after SIGTERM.

    AutoModel counts steps from 0. A checkpoint is named after the number of completed steps.
    """
    save, log, scheduler = recipe.save_checkpoint, recipe.log_train_metrics, recipe.step_scheduler
    progress = Progress(session.run, scheduler.step, scheduler.max_steps)
    first, every = scheduler.step + 1, session.run.arguments["logging_steps"]
    stops = False

    def log_and_count(data: Any) -> None:
        nonlocal stops
        log(data)
        step = scheduler.step + 1
        progress.count(int(data.metrics.get("num_label_tokens", 0)))
        if step in (first, scheduler.max_steps) or step % every == 0:
            progress.report(step, float(data.metrics["loss"]))
        if session.should_stop():
            # With this flag, AutoModel skips evaluations, saves, and leaves its loop.
            scheduler.sigterm_flag = stops = True

    def save_and_publish(epoch: int, step: int, train_loss: float, *rest: Any, **more: Any) -> None:
        save(epoch, step, train_loss, *rest, **more)
        recipe.checkpointer.async_wait()
        barrier()
        name, done = f"epoch_{epoch}_step_{step}", step + 1
        native = Native(session.saving / name, name_of(done))
        session.publish(
            Draft(done, lambda: [native], {"native_name": name}, discard=False,
                  nodes=session.run.nodes)
        )  # fmt: skip
        if stops or session.should_stop():
            session.stop(done)

    recipe.log_train_metrics = log_and_count
    recipe.save_checkpoint = save_and_publish
