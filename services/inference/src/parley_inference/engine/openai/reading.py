"""Reads one streamed chat completion: from bytes to steps, within bounds."""

from typing import Any, Final

from parley_inference.engine.base import (
    EngineError,
    EngineUsage,
    Finish,
    GenerationFailed,
    RequestRefused,
    Step,
)
from parley_inference.engine.openai.frames import BadFrame, Frames
from parley_inference.engine.openai.refusals import UpstreamAway, refusal
from parley_inference.engine.openai.text_ids import encode_piece

_FINISHES: Final = {"stop": Finish.STOP, "length": Finish.LENGTH, "eos": Finish.STOP}
# An upstream that sends more than this a token asked for does not keep to `max_tokens`.
_PIECES_A_TOKEN: Final = 4
_BYTES_A_TOKEN: Final = 256
_SLACK: Final = 64


class AnswerReader:
    """What is known of one stream. ``finish`` and ``usage``: once they were told."""

    def __init__(self, max_tokens: int) -> None:
        self._frames = Frames()
        self._pieces_left = max_tokens * _PIECES_A_TOKEN + _SLACK
        self._bytes_left = (max_tokens + _SLACK) * _BYTES_A_TOKEN
        self._texts: list[str] = []
        self.finish: Finish | None = None
        self.usage: EngineUsage | None = None

    @property
    def done(self) -> bool:
        """Whether the upstream has said that nothing more follows."""
        return self._frames.done

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._texts)

    def read(self, data: bytes) -> Step | None:
        """The step that ``data`` completes, if any. Raises EngineError."""
        ids: list[int] = []
        texts: list[str | None] = []
        try:
            for event in self._frames.feed(data):
                text = self._take(event)
                if text:
                    piece = encode_piece(text)
                    ids += piece
                    texts += [None] * (len(piece) - 1)
                    texts.append(text)
        except BadFrame as error:
            raise UpstreamAway(str(error)) from error
        return Step(ids, texts) if ids else None

    def _take(self, event: dict[str, Any]) -> str:
        """Note what an event says; its text."""
        if "error" in event:
            raise _told(event["error"])
        if isinstance(usage := event.get("usage"), dict):
            self.usage = _usage(usage)
        choices = event.get("choices")
        if not isinstance(choices, list):
            raise BadFrame("the upstream sent an event of another kind")
        return "".join(self._text_of(choice) for choice in choices if _is_first(choice))

    def _text_of(self, choice: dict[str, Any]) -> str:
        delta = choice.get("delta")
        text = delta.get("content") if isinstance(delta, dict) else None
        reason = choice.get("finish_reason")
        if text is not None and not isinstance(text, str):
            raise BadFrame("the upstream sent text that is none")
        if self.finish is not None:
            return ""
        if text:
            self._bound(text)
        if reason is not None:
            self.finish = self._finish_of(reason)
        return text or ""

    def _bound(self, text: str) -> None:
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise BadFrame("the upstream sent half a character")
        self._texts.append(text)
        self._pieces_left -= 1
        self._bytes_left -= len(text)
        if self._pieces_left < 0 or self._bytes_left < 0:
            raise GenerationFailed("the upstream sends more than was asked for")

    @staticmethod
    def _finish_of(reason: object) -> Finish:
        if reason == "content_filter":
            raise RequestRefused("messages", "the upstream's content filter ended the answer")
        finish = _FINISHES.get(str(reason))
        if finish is None:
            raise GenerationFailed("the upstream ended the answer for a reason of its own")
        return finish


def _is_first(choice: object) -> bool:
    return isinstance(choice, dict) and choice.get("index", 0) == 0


def _told(error: object) -> EngineError:
    """An error told in mid-stream, which gives its status as `code` if at all."""
    status = error.get("code") if isinstance(error, dict) else None
    if isinstance(status, int) and 400 <= status < 600:
        return refusal(status)
    return UpstreamAway("the upstream told an error in mid-stream")


def _usage(told: dict[str, Any]) -> EngineUsage:
    details = told.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return EngineUsage(
        *map(_count, (told.get("prompt_tokens"), cached, told.get("completion_tokens")))
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**31 else 0
