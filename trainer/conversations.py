"""Rows of conversations as tokens: the tokenizer's chat template, and which turns are learned."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import dataset
from data import Reader
from formats import Place, Row
from run import TrainingError
from storage import reason
from tokens import Tokenizer

# A template that marks the assistant's turns has this word.
MARK = "generation %}"
# Templates write a message in this form; others refuse it with words of their own.
FORM = "a list of objects such as {'role': 'user', 'content': '...'}"


class Learned(Enum):
    """What of a conversation the loss counts."""

    EVERYTHING = "everything"
    ASSISTANT = "assistant"


def reader(tokenizer: Tokenizer, field: str, learned: Learned) -> Reader:
    """Reads the text of a row, or its `messages` where it has no text.

    A token `t` that is read and not learned stands as `~t`.
    """

    def encode(place: Place, row: Row) -> list[int]:
        speaks = "messages" in row and (learned is Learned.ASSISTANT or row.get(field) is None)
        if speaks:
            return _conversation(place, row, tokenizer, learned)
        text = dataset.text_of(place, row, field)
        if learned is Learned.ASSISTANT:
            raise TrainingError(
                f"{place}: assistant_only_loss needs rows with a field 'messages'; leave it out"
            )
        return [*tokenizer.encode(text), tokenizer.end]

    return Reader(encode, None if learned is Learned.ASSISTANT else field)


def _conversation(place: Place, row: Row, tokenizer: Tokenizer, learned: Learned) -> list[int]:
    messages = row["messages"]
    check(place, "messages", messages)
    pretrained = tokenizer.pretrained()
    if not pretrained.chat_template:
        raise TrainingError(
            f"{place}: it has 'messages', and the tokenizer has no chat template: tokenizer_name "
            f"names one that has, such as that of the model's -Instruct release"
        )
    if learned is Learned.ASSISTANT:
        check_answers(place, messages)
    extra = {name: row[name] for name in ("tools",) if row.get(name)}
    if learned is Learned.EVERYTHING:
        return list(_applied(place, pretrained, messages, extra)["input_ids"])
    if MARK in str(pretrained.chat_template):
        marked = _applied(
            place, pretrained, messages, {**extra, "return_assistant_tokens_mask": True}
        )
        pairs = zip(marked["input_ids"], marked["assistant_masks"], strict=True)
        return [token if counts else ~token for token, counts in pairs]
    return _by_turns(place, pretrained, messages, extra)


def check(place: Place, field: str, messages: Any) -> None:
    """Refuses what is not a conversation."""
    if not _is_conversation(messages):
        raise TrainingError(f"{place}: {field!r} has to be {FORM}")
    dataset.check_text(place, messages)


def check_answers(place: Place, messages: list[Any]) -> None:
    """Refuses a conversation of which assistant_only_loss would learn nothing."""
    if not any(message["role"] == "assistant" for message in messages):
        raise TrainingError(
            f"{place}: assistant_only_loss: 'messages' has no turn of the assistant; remove the "
            f"row, or omit assistant_only_loss"
        )


def _is_conversation(messages: Any) -> bool:
    return (
        isinstance(messages, list)
        and len(messages) > 0
        and all(isinstance(one, Mapping) and isinstance(one.get("role"), str) for one in messages)
    )


def _by_turns(place: Place, pretrained: Any, messages: list[Any], extra: Row) -> list[int]:
    """Learns what each turn of the assistant adds behind the words that ask for it."""
    whole = list(_applied(place, pretrained, messages, extra)["input_ids"])
    result = [~token for token in whole]
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        asked = {**extra, "add_generation_prompt": True}
        before = list(_applied(place, pretrained, messages[:number], asked)["input_ids"])
        until = list(_applied(place, pretrained, messages[: number + 1], extra)["input_ids"])
        if until[: len(before)] != before or whole[: len(until)] != until:
            raise TrainingError(
                f"{place}: assistant_only_loss: the chat template changes earlier turns when later "
                f"ones follow, so that the turns cannot be found; mark them in the template with "
                f"{{% generation %}}, or leave assistant_only_loss out"
            )
        result[len(before) : len(until)] = whole[len(before) : len(until)]
    return result


def _applied(place: Place, pretrained: Any, messages: list[Any], extra: Row) -> Any:
    try:
        return pretrained.apply_chat_template(messages, tokenize=True, return_dict=True, **extra)
    except Exception as error:
        raise TrainingError(
            f"{place}: the tokenizer's chat template refuses the messages ({reason(error)})"
        ) from error
