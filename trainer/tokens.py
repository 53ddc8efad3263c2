"""Tokenizers, as far as a runner needs one: bytes without a download, or any of Hugging Face's."""

from __future__ import annotations

from typing import Any, Protocol

from run import TrainingError
from storage import reason


class Tokenizer(Protocol):
    """Text to tokens, with what ends a text and what fills a sequence."""

    vocabulary: int
    end: int
    padding: int

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without an end."""


class Bytes:
    """A byte is a token. The end of a text and the filling are tokens of their own."""

    end = 256
    padding = 257
    vocabulary = 258

    def encode(self, text: str) -> list[int]:
        """The bytes of a text."""
        return list(text.encode())


class Pretrained:
    """A tokenizer of Hugging Face's."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        if tokenizer.eos_token_id is None:
            raise TrainingError(
                "the tokenizer has no end-of-text token: tokenizer_name names another"
            )
        self.end: int = tokenizer.eos_token_id
        # Filling counts for nothing wherever it stands, so it gets a token that no text has.
        self.padding: int = len(tokenizer)
        self.vocabulary: int = len(tokenizer) + 1

    @staticmethod
    def load(name: str) -> Pretrained:
        """The tokenizer of a name on the hub, or of a folder."""
        from transformers import AutoTokenizer

        try:
            return Pretrained(AutoTokenizer.from_pretrained(name))
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"tokenizer_name {name} cannot be loaded: {reason(error)}; "
                f"give a name on the hub that the job reaches, or a folder"
            ) from error

    def encode(self, text: str) -> list[int]:
        """The tokens of a text."""
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return tokens
