"""Counts tokens for an upstream: with the model's tokenizer if its folder is here, else about."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from parley_inference.engine.base import Message, TokenCounts
from parley_inference.engine.hf_tokenizer import HfTokenizer
from parley_inference.engine.openai.local_tokenizer import LocalTokenizer
from parley_kit.errors import StartupError

# Tokens are rarely shorter in any language's text; an estimate should not be too low.
_BYTES_A_TOKEN: Final = 3
_TOKENS_A_MESSAGE: Final = 4
_OVERHEAD: Final = 4


class Counter:
    """``folder``: of a Hugging Face tokenizer with its chat template; None: estimate."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._local: LocalTokenizer | None = None
        self._tokenizer: HfTokenizer | None = None

    async def open(self) -> None:
        """Read the tokenizer. Raises StartupError."""
        if self._folder is None:
            return
        try:
            self._local = await asyncio.to_thread(LocalTokenizer, self._folder)
            self._tokenizer = await asyncio.to_thread(HfTokenizer, self._local)
        except (OSError, ValueError) as error:
            raise StartupError(f"the tokenizer in {self._folder} is of no use: {error}") from error

    def close(self) -> None:
        """End the tokenizer's thread."""
        if self._tokenizer is not None:
            self._tokenizer.close()

    @property
    def estimates(self) -> bool:
        """Whether counts are only about right."""
        return self._folder is None

    @property
    def tokenizer_id(self) -> str:
        """Names what counts are made with."""
        return (
            f"estimate:{_BYTES_A_TOKEN}"
            if self._tokenizer is None
            else self._tokenizer.tokenizer_id
        )

    async def count(self, messages: Sequence[Message]) -> TokenCounts:
        """Tokens of each message and of what a template adds once. Raises RequestRefused."""
        if self._tokenizer is not None:
            return await self._tokenizer.count(messages)
        return TokenCounts(
            [
                -(-len(message.content.encode()) // _BYTES_A_TOKEN) + _TOKENS_A_MESSAGE
                for message in messages
            ],
            _OVERHEAD,
        )

    def length(self, text: str) -> int:
        """Tokens of an answer; only where counts are exact."""
        return 0 if self._local is None else self._local.length(text)
