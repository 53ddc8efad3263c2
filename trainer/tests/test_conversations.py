"""Rows of conversations: the chat template's tokens, and the loss on the assistant's turns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import here
import llamas
import numpy
import pytest
import torch

import conversations
from conversations import Learned
from run import TrainingError
from tokens import Bytes, Pretrained

# As the hub's instruct models write a conversation: without marks of the assistant's turns.
PLAIN = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '[' + message.role + ']' + message.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)
# It leaves out what earlier turns of the assistant said.
FORGETFUL = (
    "{% for message in messages %}{% if loop.last or message.role != 'assistant' %}"
    "{{ '[' + message.role + ']' + message.content }}{% endif %}{% endfor %}"
)
MESSAGES = [
    {"role": "user", "content": "ab"},
    {"role": "assistant", "content": "cd"},
    {"role": "user", "content": "ef"},
    {"role": "assistant", "content": "gh"},
]


def tokenizer(template: str) -> Pretrained:
    pretrained = here.tokenizer()
    pretrained.chat_template = template
    return Pretrained(pretrained)


def encoded(tokens: Any, learned: Learned, row: dict[str, Any]) -> list[int]:
    return conversations.reader(tokens, "text", learned).encode("row 1", row)


def learned_text(tokens: Any, found: list[int]) -> str:
    return str(tokens.pretrained().decode([token for token in found if token >= 0]))


def test_a_conversation_is_what_the_template_makes_of_it() -> None:
    tokens = tokenizer(PLAIN)
    found = encoded(tokens, Learned.EVERYTHING, {"messages": MESSAGES})
    assert learned_text(tokens, found) == (
        "<s>[user]ab</s>[assistant]cd</s>[user]ef</s>[assistant]gh</s>"
    )


@pytest.mark.parametrize("tokens", [tokenizer(PLAIN), Bytes()], ids=["by turns", "marked"])
def test_the_turns_of_the_assistant_alone_are_learned(tokens: Any) -> None:
    row = {"messages": MESSAGES, "text": "x"}
    found = encoded(tokens, Learned.ASSISTANT, row)
    end = tokens.pretrained().eos_token
    assert learned_text(tokens, found) == f"cd{end}gh{end}"
    read = [token if token >= 0 else ~token for token in found]
    assert read == encoded(tokens, Learned.EVERYTHING, {"messages": MESSAGES})


def test_text_is_read_where_there_is_some() -> None:
    tokens = tokenizer(PLAIN)
    found = encoded(tokens, Learned.EVERYTHING, {"messages": MESSAGES, "text": "x"})
    assert learned_text(tokens, found) == "<s>x</s>"


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"text": "x"}, "assistant_only_loss needs rows with a field 'messages'"),
        ({"messages": "x"}, "row 1: 'messages' has to be a list of objects"),
        ({"messages": []}, "row 1: 'messages' has to be a list of objects"),
        ({"messages": [{"content": "x"}]}, "row 1: 'messages' has to be a list of objects"),
        ({"messages": [{"role": "assistant"}]}, "row 1: the tokenizer's chat template refuses"),
    ],
)
def test_a_row_that_is_not_a_conversation_is_refused(row: dict[str, Any], error: str) -> None:
    with pytest.raises(TrainingError, match=error):
        encoded(tokenizer(PLAIN), Learned.ASSISTANT, row)


def test_turns_that_later_ones_change_are_refused() -> None:
    with pytest.raises(TrainingError, match="the chat template changes earlier turns"):
        encoded(tokenizer(FORGETFUL), Learned.ASSISTANT, {"messages": MESSAGES})


@pytest.mark.parametrize("only", [False, True])
def test_the_loss_counts_what_is_learned(tmp_path: Path, only: bool) -> None:
    folder = llamas.saved(tmp_path / "model")
    tokens = tokenizer(PLAIN)
    tokens.pretrained().save_pretrained(folder)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"messages": MESSAGES}))
    given: dict[str, Any] = {
        "max_steps": 1,
        "max_seq_len": 96,
        "batch_size": 1,
        "assistant_only_loss": only,
    }
    ended = here.run(tmp_path / "run", rows, framework="meta", model=folder, **given)
    assert ended.code == 0, ended.output
    learned = Learned.ASSISTANT if only else Learned.EVERYTHING
    found = numpy.array(encoded(tokens, learned, {"messages": MESSAGES}))
    labels = torch.tensor(numpy.where(found < 0, -100, found))[None]
    inputs = torch.tensor(numpy.where(found < 0, ~found, found))[None]
    with torch.no_grad():
        expected = llamas.theirs(folder)(input_ids=inputs, labels=labels).loss.item()
    assert ended.losses[1] == pytest.approx(expected, rel=1e-4)


GOOD = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


@pytest.mark.parametrize("given", [{"assistant_only_loss": True}, {"packing": True}])
@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": None}, "'messages' has to be a list"),
        ({"messages": "user: a"}, "'messages' has to be a list"),
        ({"messages": []}, "'messages' has to be a list"),
        ({"messages": [{"content": "a"}]}, "'messages' has to be a list"),
        ({"messages": [{"role": 1, "content": "a"}]}, "'messages' has to be a list"),
        ({"messages": [{"role": "user", "content": "\ud83d"}]}, "is an unpaired surrogate"),
        ({"prompt": "a"}, "a row needs 'prompt' and 'completion'"),
        ({"prompt": "a", "completion": None}, "a row needs 'prompt' and 'completion'"),
        ({"prompt": "a", "completion": [{"role": "user"}]}, "a row needs 'prompt' and"),
        ({"prompt": [{"role": "user", "content": "a"}], "completion": 1}, "'completion' has to be"),
    ],
)
def test_hf_refuses_awkward_conversations_with_their_place(
    tmp_path: Path, given: dict[str, Any], row: dict[str, Any], words: str
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f"{json.dumps(GOOD)}\n{json.dumps(row)}\n")
    ended = here.run(tmp_path, rows, max_steps=2, max_seq_len=32, **given)
    (line,) = ended.errors
    assert f"{rows}, line 2: " in line
    assert words in line
    assert "Traceback" not in ended.output
