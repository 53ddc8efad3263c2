"""TRL's SFTTrainer, for packing and for learning from the assistant's turns alone."""

from __future__ import annotations

from typing import Any

import data
import dataset
from run import TrainingError
from runners import hf_model, lacks
from runners.hf_arguments import Wish
from runners.hf_saving import later
from session import Session


def arguments(native: dict[str, Any], wish: Wish) -> Any:
    """TRL's own arguments, which are transformers' and some more."""
    try:
        from trl.trainer.sft_config import SFTConfig
    except ModuleNotFoundError as error:
        raise lacks("packing and assistant_only_loss", "trl") from error
    return SFTConfig(
        **{**native, "remove_unused_columns": True},
        dataset_text_field=wish.value("dataset_text_field"),
        max_length=wish.value("max_seq_len"),
        packing=wish.value("packing"),
        # Cuts sequences to the same length whatever the attention kernel is.
        packing_strategy="wrapped",
        assistant_only_loss=wish.value("assistant_only_loss"),
    )


def build(
    session: Session, wish: Wish, arguments: Any, model: Any, adapters: Any
) -> tuple[Any, float]:
    """The trainer, and the tokens that a sequence has."""
    from trl.trainer.sft_trainer import SFTTrainer

    rows = gather(session, wish)
    held = None
    if arguments.eval_strategy != "no":
        if len(rows) < data.HELD_OUT:
            raise TrainingError(
                f"dataset {session.run.dataset_uri} has {len(rows)} rows: an evaluation keeps one "
                f"of {data.HELD_OUT}, so leave eval_steps and eval_strategy out or give more data"
            )
        held = rows.select(range(data.HELD_OUT - 1, len(rows), data.HELD_OUT))
        others = [at for at in range(len(rows)) if at % data.HELD_OUT != data.HELD_OUT - 1]
        rows = rows.select(others)
    trainer = later(SFTTrainer)(
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=held,
        processing_class=hf_model.tokenizer(session.run.model_id, wish),
        peft_config=adapters,
    )
    return trainer, float(wish.value("max_seq_len"))


def gather(session: Session, wish: Wish) -> Any:
    """All rows, each read from the store by one process."""
    from datasets import Dataset

    field = wish.value("dataset_text_field")
    own = []
    for place, row in data.rows(session.run, session.storage):
        if "messages" not in row and "prompt" not in row:
            dataset.text_of(place, row, field)
        own.append(dict(row))
    return Dataset.from_list(data.of_all(session.run, own))
