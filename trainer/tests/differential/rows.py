"""The dataset and the models of the differential tests."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import here
from conftest import english

# A conversation of the rows, with the marks that assistant_only_loss needs.
CHAT = (
    "{% for message in messages %}{{ message.role + ': ' }}"
    "{% if message.role == 'assistant' %}{% generation %}{{ message.content }}{% endgeneration %}"
    "{% else %}{{ message.content }}{% endif %}{{ eos_token }}{% endfor %}"
)


def texts() -> list[str]:
    """Texts of about one to three sequences each."""
    draw = random.Random(5)
    words = " ".join(english()).split()
    begins = [draw.randrange(len(words) - 60) for _ in range(18)]
    return [" ".join(words[at : at + draw.randint(3, 24)]) for at in begins]


def rows(data: str) -> list[dict[str, Any]]:
    """The rows of a dataset."""
    if data != "chat":
        return [{"text": text} for text in texts()]
    found = []
    for text in texts():
        half = len(text) // 2
        roles = zip(("user", "assistant"), (text[:half][:30], text[half:][:60]), strict=True)
        found.append({"messages": [{"role": role, "content": said} for role, said in roles]})
    return found


def write(folder: Path, data: str) -> Path:
    """Writes a dataset."""
    file = folder / f"{data}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows(data)))
    return file


def model(folder: Path, stored: str) -> Path:
    """Writes a model with weights of a type, and a tokenizer with a chat template."""
    made = here.model(folder / stored, stored=stored, hidden_size=32, intermediate_size=64)
    tokens = here.tokenizer()
    tokens.chat_template = CHAT
    tokens.save_pretrained(made)
    return made
