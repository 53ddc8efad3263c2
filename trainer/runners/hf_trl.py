"""TRL's SFTTrainer, for packing and for learning from the assistant's turns alone."""

from __future__ import annotations

import logging
from typing import Any

import data
import dataset
from formats import Place, Row
from run import TrainingError
from runners import lacks
from runners.hf_arguments import HfArguments
from runners.hf_saving import deferred_saving
from session import Session
from tokens import Tokenizer

LOG = logging.getLogger("trainer")


def arguments(native: dict[str, Any], wish: HfArguments) -> Any:
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
    session: Session, wish: HfArguments, tokens: Tokenizer, *, args: Any, **given: Any
) -> tuple[Any, float]:
    """The trainer, and the tokens that a sequence has. `args` and `given` are TRL's own."""
    from trl.trainer.sft_trainer import SFTTrainer

    if wish.value("dataset_streaming"):
        # The plugin accepts it with packing alone, as a launch of the contract has it.
        LOG.warning(
            "dataset_streaming has no effect: the whole dataset is read before the training"
        )
    rows = gather(session, wish, tokens)
    held = None
    if args.eval_strategy != "no":
        if len(rows) < data.HELD_OUT:
            raise TrainingError(
                f"dataset {session.run.dataset_uri} has {len(rows)} rows: an evaluation keeps one "
                f"of {data.HELD_OUT}, so leave eval_steps and eval_strategy out or give more data"
            )
        held = rows.select(range(data.HELD_OUT - 1, len(rows), data.HELD_OUT))
        others = [at for at in range(len(rows)) if at % data.HELD_OUT != data.HELD_OUT - 1]
        rows = rows.select(others)
    trainer = deferred_saving(SFTTrainer)(
        args=args,
        train_dataset=rows,
        eval_dataset=held,
        processing_class=tokens.pretrained(),
        **given,
    )
    return trainer, float(wish.value("max_seq_len"))


# What TRL evaluates beside the loss (trainer/sft_trainer.py).
METRICS = ("mean_token_accuracy", "entropy", "num_tokens")
# What TRL reads of a row, each name with the rows that have it.
CHAT = ("messages", "tools", "chat_template_kwargs")
PROMPTED = ("prompt", "completion", "tools", "chat_template_kwargs")


def gather(session: Session, wish: HfArguments, tokens: Tokenizer) -> Any:
    """All rows, each read from the store by one process, with the columns that TRL reads."""
    from datasets import Dataset

    field = wish.value("dataset_text_field")
    own = [
        _columns(place, row, field, tokens)
        for place, row in data.rows(session.run, session.storage)
    ]
    rows = data.gather_rows(session.run, own)
    kinds = {frozenset(row) & {"input_ids", "messages", "prompt"} for row in rows}
    if len(kinds) > 1:
        raise TrainingError(
            f"dataset {session.run.dataset_uri} mixes rows of text, of messages and of prompts: "
            f"packing and assistant_only_loss need rows of one kind"
        )
    if wish.value("assistant_only_loss") and "input_ids" in rows[0]:
        raise TrainingError(
            f"assistant_only_loss needs rows with a field 'messages'; the rows of dataset "
            f"{session.run.dataset_uri} are text"
        )
    return Dataset.from_list(rows)


def _columns(place: Place, row: Row, field: str, tokens: Tokenizer) -> dict[str, Any]:
    """What TRL reads of a row. Text goes in as tokens, so that every path makes the same ones."""
    names = CHAT if "messages" in row else PROMPTED if "prompt" in row else ()
    if names:
        found = {name: row[name] for name in names if row.get(name) is not None}
        dataset.check_text(place, found)
        return found
    return {"input_ids": [*tokens.encode(dataset.text_of(place, row, field)), tokens.end]}
