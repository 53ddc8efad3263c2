"""Tokenizers: bytes, which need no download, or any tokenizer of Hugging Face."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from run import TrainingError
from storage import reason

# A conversation as text, with the marks that assistant_only_loss needs.
CHAT = (
    "{% for message in messages %}{{ message.role + ': ' }}"
    "{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content + eos_token }}{% endgeneration %}"
    "{% else %}{{ message.content + eos_token }}{% endif %}{% endfor %}"
)


class Tokenizer(Protocol):
    """Text to tokens, with the token that ends a text and the one that fills a sequence."""

    vocabulary: int
    end: int
    padding: int

    def encode(self, text: str) -> list[int]:
        """The tokens of a text with the special tokens that the tokenizer adds, except the end."""

    def pretrained(self) -> Any:
        """The same tokenizer as a class of Hugging Face, which `AutoTokenizer` loads again."""


class Bytes:
    """A byte is a token. The end of a text and the filling are tokens of their own."""

    end = 256
    padding = 257
    vocabulary = 258

    def encode(self, text: str) -> list[int]:
        """The bytes of a text."""
        return list(text.encode())

    def pretrained(self) -> Any:
        """Bytes as tokens, in the format of Hugging Face."""
        return self._pretrained

    @cached_property
    def _pretrained(self) -> Any:
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        bytewise = Tokenizer(models.BPE({letter: at for at, letter in enumerate(letters)}, []))
        bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        bytewise.decoder = decoders.ByteLevel()
        bytewise.add_special_tokens([AddedToken("<end>"), AddedToken("<padding>")])
        return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_object=bytewise, eos_token="<end>", pad_token="<padding>", chat_template=CHAT
        )


class Pretrained:
    """A tokenizer of Hugging Face."""

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
    def load(name: str, folder: Path, argument: str) -> Pretrained:
        """The tokenizer in a folder; `argument` is what named it, for errors."""
        from transformers import AutoTokenizer

        try:
            return Pretrained(AutoTokenizer.from_pretrained(folder))
        except Exception as error:
            raise TrainingError(
                f"{argument} {name}: its tokenizer cannot be loaded ({reason(error)}); "
                f"tokenizer_name names another"
            ) from error

    def encode(self, text: str) -> list[int]:
        """The tokens of a text as the tokenizer defines them, such as `<s>` first.

        Some tokenizers add the end themselves, and some texts have it. It must not be there twice.
        """
        tokens: list[int] = self._tokenizer.encode(text)
        return tokens[:-1] if tokens and tokens[-1] == self.end else tokens

    def pretrained(self) -> Any:
        """The tokenizer itself."""
        return self._tokenizer
