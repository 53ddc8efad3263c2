"""TRL's SFTTrainer, for packing and for training only on the assistant's turns."""

from __future__ import annotations

import logging
from typing import Any

import conversations
import data
import dataset
from formats import Place, Row
from run import TrainingError
from runners import lacks
from runners.hf_arguments import HfArguments
from runners.hf_saving import deferred_saving
from session import Session
from storage import reason
from tokens import Tokenizer

LOG = logging.getLogger("trainer")


def arguments(native: dict[str, Any], options: HfArguments) -> Any:
    """The arguments of TRL, which extend those of transformers."""
    try:
        from trl.trainer.sft_config import SFTConfig
    except ModuleNotFoundError as error:
        raise lacks("packing and assistant_only_loss", "trl") from error
    return SFTConfig(
        **{**native, "remove_unused_columns": True},
        dataset_text_field=options.value("dataset_text_field"),
        max_length=options.value("max_seq_len"),
        packing=options.value("packing"),
        # Produces sequences of equal length with any attention kernel.
        packing_strategy="wrapped",
        assistant_only_loss=options.value("assistant_only_loss"),
    )


def build(
    session: Session, options: HfArguments, tokens: Tokenizer, *, args: Any, **given: Any
) -> tuple[Any, float]:
    """The trainer, and the length of a sequence. `args` and `given` are arguments of TRL."""
    from trl.trainer.sft_trainer import SFTTrainer

    if options.value("dataset_streaming"):
        # The plugin accepts this combination, because a vector of the specification contains it.
        LOG.warning(
            "dataset_streaming has no effect with packing: training starts after reading all data"
        )
    rows = gather(session, options, tokens)
    held = None
    if args.eval_strategy != "no":
        if len(rows) < data.HELD_OUT:
            raise TrainingError(
                f"dataset {session.run.dataset_uri} has {len(rows)} rows: an evaluation needs at "
                f"least {data.HELD_OUT}; remove eval_steps and eval_strategy, or add data"
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
    if not len(trainer.train_dataset):
        raise TrainingError(
            f"dataset {session.run.dataset_uri}: no turn of the assistant is within the first "
            f"{options.value('max_seq_len')} tokens of a row; raise max_seq_len"
        )
    return trainer, float(options.value("max_seq_len"))


# Metrics that TRL evaluates in addition to the loss (trainer/sft_trainer.py).
METRICS = ("mean_token_accuracy", "entropy", "num_tokens")
# Fields that TRL reads, for chat rows and for rows with prompts.
CHAT = ("messages", "tools", "chat_template_kwargs")
PROMPTED = ("prompt", "completion", "tools", "chat_template_kwargs")


def gather(session: Session, options: HfArguments, tokens: Tokenizer) -> Any:
    """Gathers all rows with the columns that TRL needs. Each process reads a share."""
    from datasets import Dataset

    field = options.value("dataset_text_field")
    template = tokens.pretrained()
    own = []
    for place, row in data.rows(session.run, session.storage):
        found = _columns(place, row, field, tokens)
        if options.value("assistant_only_loss") and "messages" in found:
            conversations.check_answers(place, found["messages"])
        _check_renders(place, found, template)
        own.append(found)
    rows = data.gather_rows(session.run, own)
    kinds = {frozenset(row) & {"input_ids", "messages", "prompt"} for row in rows}
    if len(kinds) > 1:
        raise TrainingError(
            f"dataset {session.run.dataset_uri} mixes rows with text, messages and prompts: "
            f"packing and assistant_only_loss need rows of a single kind"
        )
    if options.value("assistant_only_loss") and "input_ids" in rows[0]:
        raise TrainingError(
            f"assistant_only_loss needs rows with a field 'messages', but the rows of dataset "
            f"{session.run.dataset_uri} contain text"
        )
    return Dataset.from_list(rows)


def _columns(place: Place, row: Row, field: str, tokens: Tokenizer) -> dict[str, Any]:
    """The columns of a row. Text is tokenized here, so that all code paths produce equal tokens."""
    names = CHAT if "messages" in row else PROMPTED if "prompt" in row else ()
    if names:
        _check(place, row)
        found = {name: row[name] for name in names if row.get(name) is not None}
        dataset.check_text(place, found)
        return found
    return {"input_ids": [*tokens.encode(dataset.text_of(place, row, field)), tokens.end]}


def _check_renders(place: Place, row: dict[str, Any], tokenizer: Any) -> None:
    """Refuses messages that the tokenizer's chat template cannot render."""
    turns = row.get("messages") or row.get("prompt")
    if not isinstance(turns, list) or not tokenizer.chat_template:
        return
    given = row.get("chat_template_kwargs") or {}
    try:
        tokenizer.apply_chat_template(
            [*turns, *row.get("completion", [])], tools=row.get("tools"), tokenize=False, **given
        )
    # Templates raise errors of many types.
    except Exception as error:
        raise TrainingError(
            f"{place}: the tokenizer's chat template cannot render the messages ({reason(error)}); "
            f"correct the row, or set tokenizer_name to one whose template can"
        ) from error


def _check(place: Place, row: Row) -> None:
    """Refuses rows that TRL cannot read, because its errors do not name the row."""
    if "messages" in row:
        conversations.check(place, "messages", row["messages"])
        return
    parts = [row.get(name) for name in ("prompt", "completion")]
    if all(isinstance(part, str) for part in parts):
        return
    for name, part in zip(("prompt", "completion"), parts, strict=True):
        if part is None or isinstance(part, str):
            raise TrainingError(
                f"{place}: a row needs 'prompt' and 'completion', both as strings or both as "
                f"lists of messages"
            )
        conversations.check(place, name, part)
