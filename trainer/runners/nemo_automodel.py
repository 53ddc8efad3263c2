"""NeMo AutoModel (0.7): the configuration of a job, and what is published of it."""

from __future__ import annotations

import importlib
import json
import logging
import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import data
import dataset
import session as sessions
from checkpoints import Native, name_of
from logs import Progress
from publisher import Draft
from run import Run, TrainingError
from session import Session, meet
from storage import reason

LOG = logging.getLogger("trainer")

# The plugin's defaults, where the library has others (plugins/nemo/src/arguments.rs).
DEFAULTS: dict[str, Any] = {
    "batch_size": 1, "context_parallel": 1, "dataloader_workers": 2, "dataset_text_field": "text",
    "expert_parallel": 1, "gradient_accumulation": 1, "logging_steps": 10, "lora_alpha": 32,
    "lora_dropout": 0.0, "lora_rank": 32, "lr": 2e-5, "lr_scheduler": "cosine",
    "max_grad_norm": 1.0, "max_seq_len": 2048, "min_lr": 0.0, "num_epochs": 1,
    "peft_method": "none", "pipeline_parallel": 1, "precision": "bf16-mixed",
    "recompute_granularity": "none", "save_steps": 100, "seed": 1234, "tensor_parallel": 1,
    "warmup_steps": 0, "weight_decay": 0.01,
}  # fmt: skip
# Arguments of Megatron that AutoModel does not have, with the values that ask for nothing.
REFUSED: dict[str, tuple[Any, ...]] = {
    "expert_tensor_parallel": (1,),
    "recipe": (),
    # A run that has ended goes on by itself when max_steps is raised.
    "resume_past_end": (False,),
    "virtual_pipeline_parallel": (1,),
}
# Read by the plugin alone: they check a job, or choose variables.
OF_THE_PLUGIN = ("gpu_arch", "num_moe_experts")
# The library's names of Megatron's fused modules.
MODULES = {
    "linear_qkv": ["*.q_proj", "*.k_proj", "*.v_proj"],
    "linear_proj": ["*.o_proj"],
    "linear_fc1": ["*.gate_proj", "*.up_proj"],
    "linear_fc2": ["*.down_proj"],
}
CHECKPOINT = re.compile(r"^epoch_(\d+)_step_(\d+)$")


def settings(
    run: Run, arguments: Mapping[str, Any], data_file: str, checkpoints: str
) -> dict[str, Any]:
    """The library's configuration, as its YAML files have it."""
    for name, nothing in REFUSED.items():
        if arguments.get(name) is not None and arguments[name] not in nothing:
            raise TrainingError(f"{name}: NeMo AutoModel does not have it; leave it out")
    value = {**DEFAULTS, **arguments}
    splits = value["tensor_parallel"] * value["pipeline_parallel"] * value["context_parallel"]
    replicas = max(1, run.world_size // splits)
    batch = value["batch_size"]
    epochs = None if "max_steps" in value else value["num_epochs"]
    config: dict[str, Any] = {
        "seed": value["seed"],
        "step_scheduler": {
            "global_batch_size": value.get("global_batch_size")
            or batch * replicas * value["gradient_accumulation"],
            "local_batch_size": batch,
            "max_steps": value.get("max_steps"),
            "num_epochs": epochs,
            "ckpt_every_steps": value["save_steps"],
            "save_checkpoint_every_epoch": False,
            "val_every_steps": value.get("eval_steps"),
            "log_remote_every_steps": value["logging_steps"],
        },
        "model": {
            "_target_": "nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained",
            "pretrained_model_name_or_path": value.get("restore_from") or run.model_id,
            "torch_dtype": "float32" if value["precision"] == "32" else "bfloat16",
        },
        "distributed": {
            "strategy": "megatron_fsdp" if value.get("fsdp") else "fsdp2",
            "tp_size": value["tensor_parallel"],
            "pp_size": value["pipeline_parallel"],
            **({"pipeline": {}} if value["pipeline_parallel"] > 1 else {}),
            "cp_size": value["context_parallel"],
            "ep_size": value["expert_parallel"],
            "sequence_parallel": bool(value.get("sequence_parallel")),
            "activation_checkpointing": {"none": False, "selective": "selective", "full": True}[
                value["recompute_granularity"]
            ],
        },
        "checkpoint": {
            "enabled": True,
            "checkpoint_dir": checkpoints,
            "is_async": bool(value.get("async_save")),
            # The publisher counts what is kept in the store; here the two that it works on.
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
        },
        "clip_grad_norm": {"max_norm": value["max_grad_norm"] or None},
        "loss_fn": {"_target_": "nemo_automodel.components.loss.masked_ce.MaskedCrossEntropy"},
        "dataset": {**_dataset(data_file, value), "split": "train"},
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
        raise TrainingError("precision 16-mixed: NeMo AutoModel trains in bf16-mixed or 32")
    if value["precision"] in ("bf16-fp8", "bf16-mxfp8"):
        recipe = "rowwise" if value["precision"] == "bf16-mxfp8" else "tensorwise"
        config["fp8"] = {"enabled": True, "recipe_name": recipe}
    if value["peft_method"] != "none":
        config["peft"] = _adapters(value)
    if value.get("eval_steps"):
        config["validation_dataset"] = {**_dataset(f"{data_file}.held", value), "split": "train"}
        held = value.get("eval_batch_size") or batch
        config["validation_dataloader"] = {**config["dataloader"], "batch_size": held}
    for override in value.get("overrides") or []:
        _override(config, override)
    return config


def _dataset(file: str, value: Mapping[str, Any]) -> dict[str, Any]:
    module = "nemo_automodel.components.datasets.llm.column_mapped_text_instruction_dataset"
    return {
        "_target_": f"{module}.ColumnMappedTextInstructionDataset",
        "path_or_dataset_id": file,
        "column_mapping": {"answer": value["dataset_text_field"]},
        "answer_only_loss_mask": False,
        "seq_length": value["max_seq_len"],
        "truncation": True,
        "tokenizer": value.get("tokenizer_name"),
    }


def _adapters(value: Mapping[str, Any]) -> dict[str, Any]:
    wished = value.get("lora_target_modules") or list(MODULES)
    return {
        "_target_": "nemo_automodel.components._peft.lora.PeftConfig",
        "target_modules": [theirs for name in wished for theirs in MODULES.get(name, [name])],
        "dim": value["lora_rank"],
        "alpha": value["lora_alpha"],
        "dropout": value["lora_dropout"],
        "use_dora": value["peft_method"] == "dora",
    }


def _warmup(value: Mapping[str, Any]) -> int:
    if "warmup_ratio" not in value:
        return int(value["warmup_steps"])
    if "max_steps" not in value:
        raise TrainingError("warmup_ratio: NeMo AutoModel needs max_steps to make steps of it")
    return math.ceil(float(value["warmup_ratio"]) * int(value["max_steps"]))


def _override(config: dict[str, Any], override: str) -> None:
    """`++a.b=c`, as Hydra writes it."""
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
    known = {*DEFAULTS, *REFUSED, *OF_THE_PLUGIN, *OPTIONAL}
    if aside := sorted(set(arguments) - known):
        LOG.warning("arguments that this runner does not have: %s", ", ".join(aside))
    file = run.scratch / "data" / "rows.jsonl"
    config = settings(run, arguments, str(file), str(session.saving))
    if not torch.cuda.is_available():
        raise TrainingError("framework nemo needs a GPU: use framework hf or meta on a CPU")
    sessions.join(run)
    session.publisher.keep(arguments.get("save_total_limit"))
    _write_rows(session, file, arguments)
    found = session.prepare({**DEFAULTS, **arguments})
    if found and run.is_leader:
        place(found[1], session.saving, str(found[0].metadata.get("native_name", "")))
    meet()
    loader = importlib.import_module("nemo_automodel.components.config.loader")
    recipes = importlib.import_module("nemo_automodel.recipes.llm.train_ft")
    try:
        recipe = recipes.TrainFinetuneRecipeForNextTokenPrediction(loader.ConfigNode(config))
        recipe.setup()
    except (TypeError, ValueError) as error:
        raise TrainingError(f"NeMo AutoModel refuses the job: {reason(error)}") from error
    _publish_from(recipe, session)
    recipe.run_train_validation_loop()


OPTIONAL = (
    "async_save", "eval_batch_size", "eval_steps", "fsdp", "global_batch_size",
    "lora_target_modules", "max_steps", "overrides", "packing", "restore_from",
    "save_total_limit", "sequence_parallel", "tokenizer_name", "warmup_ratio",
)  # fmt: skip


def place(path: Path, folder: Path, native_name: str) -> None:
    """Lays a fetched checkpoint where AutoModel's resume looks, with the link that it follows."""
    name = native_name if CHECKPOINT.match(native_name) else f"epoch_0_step_{int(path.name[5:])}"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(path, folder / name, dirs_exist_ok=True)
    link = folder / "LATEST"
    link.unlink(missing_ok=True)
    link.symlink_to(name)


def _write_rows(session: Session, file: Path, arguments: Mapping[str, Any]) -> None:
    """Each node gets the rows in a file, of which AutoModel's ranks read their parts."""
    from torch import distributed

    field = str(arguments.get("dataset_text_field", "text"))
    own = [
        {field: dataset.text_of(place, row, field)}
        for place, row in data.rows(session.run, session.storage, field)
    ]
    shares: list[Any] = [own]
    if session.run.world_size > 1:
        shares = [None] * session.run.world_size
        distributed.all_gather_object(shares, own)
    rows = [row for share in shares for row in share]
    if not rows:
        raise TrainingError(f"dataset {session.run.dataset_uri} holds no rows: nothing to train on")
    if not session.run.is_leader:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    held = rows[data.HELD_OUT - 1 :: data.HELD_OUT] if arguments.get("eval_steps") else []
    kept = [row for row in rows if row not in held]
    for path, part in ((file, kept), (Path(f"{file}.held"), held)):
        path.write_text("".join(json.dumps(row) + "\n" for row in part))


def _publish_from(recipe: Any, session: Session) -> None:
    """Publishes each checkpoint that AutoModel has written under its step."""
    save, scheduler = recipe.save_checkpoint, recipe.step_scheduler
    progress = Progress(session.run, scheduler.step, scheduler.max_steps)
    tokens = scheduler.grad_acc_steps * session.run.world_size

    def save_and_publish(epoch: int, step: int, train_loss: float, *rest: Any, **more: Any) -> None:
        save(epoch, step, train_loss, *rest, **more)
        recipe.checkpointer.async_wait()
        meet()
        progress.count(tokens)
        progress.report(step, float(train_loss))
        name = f"epoch_{epoch}_step_{step}"
        native = Native(session.saving / name, name_of(step))
        session.publish(
            Draft(step, lambda: [native], {"native_name": name}, discard=False,
                  nodes=session.run.nodes)
        )  # fmt: skip
        if session.should_stop():
            session.stop(step)

    recipe.save_checkpoint = save_and_publish
