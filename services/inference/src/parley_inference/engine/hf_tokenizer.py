"""A Hugging Face tokenizer with its chat template, used from one thread of its own.

Fast tokenizers release the GIL while they work and must not be used by two threads at a time;
a single worker thread keeps long prompts off the event loop and requests in order.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from parley_inference.engine.base import Message, RequestRefused, TokenCounts
from parley_inference.engine.counting import MessageCounter
from parley_inference.engine.templates import VERSION as PLAIN_VERSION
from parley_inference.engine.templates import render_plain

_log = logging.getLogger(__name__)

T = TypeVar("T")

# Tokens of the prompt that a decoder is given, so that the answer's first token is decoded as
# what follows a prompt (some vocabularies drop a space at the beginning of a text).
_CONTEXT: Final = 16
# What the decoder says when bytes that are not UTF-8 have upset its state; see `Decoder.push`.
_UPSET: Final = "Invalid prefix encountered"
_LATEST: Final = datetime.max.replace(tzinfo=UTC)


class Decoder:
    """Turns an answer's tokens into text one by one."""

    def __init__(self, tokenizer: Any, special_ids: frozenset[int], prompt: Sequence[int]) -> None:
        from tokenizers.decoders import DecodeStream

        self._new: Callable[[list[int]], Any] = lambda ids: DecodeStream(
            ids=ids, skip_special_tokens=True
        )
        self._tokenizer = tokenizer
        self._special_ids = special_ids
        self._stream = self._new(list(prompt[-_CONTEXT:]))

    def push(self, token_id: int) -> str | None:
        """The text that this token completes; None if it ends inside a character."""
        try:
            text: str | None = self._stream.step(self._tokenizer, token_id)
        except Exception as error:
            # Seen with byte sequences that are not UTF-8: the stream's text is not an extension
            # of what it gave before. It begins anew with this token, as vLLM's own does.
            if not str(error).startswith(_UPSET):
                raise
            _log.warning("the detokeniser met bytes that are not UTF-8 and begins anew")
            self._stream = self._new([])
            text = self._stream.step(self._tokenizer, token_id)
        if text is None and token_id in self._special_ids:
            return ""
        return text


class HfTokenizer:
    """Renders, counts and decodes for one model. ``tokenizer``: of `transformers`, fast."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._template: str | None = tokenizer.chat_template or None
        self._special_ids = frozenset(
            token_id
            for token_id, token in self._backend.get_added_tokens_decoder().items()
            if token.special
        )
        self._begin: list[int] = tokenizer("", add_special_tokens=True)["input_ids"]
        if self._begin and self._begin[-1] == tokenizer.eos_token_id != tokenizer.bos_token_id:
            self._begin = self._begin[:-1]
        self._counter = MessageCounter(self._length)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizer")

    @property
    def tokenizer_id(self) -> str:
        """Names vocabulary and template: counts of another one are not valid here."""
        digest = hashlib.sha256(self._backend.to_str().encode())
        digest.update((self._template or PLAIN_VERSION).encode())
        return f"hf:{digest.hexdigest()[:16]}"

    @property
    def has_template(self) -> bool:
        """Whether the model brought a chat template; else the plain one is used."""
        return self._template is not None

    async def render(self, messages: Sequence[Message], template_time: int) -> list[int]:
        """Token ids of a prompt. Raises RequestRefused if the template does not take it."""
        return await self._on_thread(lambda: self.render_now(messages, template_time))

    async def count(self, messages: Sequence[Message]) -> TokenCounts:
        """Tokens of each message, and those added once."""
        return await self._on_thread(lambda: self._counter.count(messages))

    def decoder(self, prompt: Sequence[int]) -> Decoder:
        """A decoder for the answer to ``prompt``."""
        return Decoder(self._backend, self._special_ids, prompt)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _length(self, messages: Sequence[Message], answer_marker: bool) -> int:
        return len(self.render_now(messages, 0, answer_marker=answer_marker))

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def render_now(
        self, messages: Sequence[Message], template_time: int, *, answer_marker: bool = True
    ) -> list[int]:
        """As ``render``, in the calling thread."""
        if self._template is None:
            return render_plain(
                messages, self._encode, begin=self._begin, answer_marker=answer_marker
            )
        now = datetime.fromtimestamp(template_time, UTC) if template_time else datetime.now(UTC)
        try:
            text: str = self._tokenizer.apply_chat_template(
                [{"role": m.role.value, "content": m.content} for m in messages],
                tokenize=False,
                add_generation_prompt=answer_marker,
                # Stands in for the template function of that name, which reads the clock.
                strftime_now=now.strftime,
            )
        except Exception as error:
            # Templates raise errors of their own for roles and orders that they do not know.
            import jinja2

            if not isinstance(error, jinja2.TemplateError):
                raise
            raise RequestRefused("messages", _sentence(error)) from error
        return self._encode(text)


def _sentence(error: Exception) -> str:
    """What the template says, on one line and short: it is shown to the caller."""
    said = re.sub(r"\s+", " ", str(error)).strip()[:200]
    return f"the model's chat template refuses these messages: {said}"
