"""Assembles an answer from tokens, and says how much of it may be sent.

Text may be sent up to a token boundary where it is whole UTF-8 and no suffix of it can begin a
stop string: from such a point, and from the token ids before it, anyone can continue the answer
without taking back a byte. What lies beyond is held, at most until the answer ends.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from parley_inference.answer.stop import StopMatcher


class Chunk(NamedTuple):
    """Text of an answer that begins after ``offset`` bytes of it, and its tokens."""

    offset: int
    text: str
    token_ids: list[int]


class Assembler:
    """The text and tokens of one answer. Single-threaded, nothing waits here."""

    def __init__(
        self, stops: Sequence[str] = (), *, drawn: Callable[[Sequence[int]], int] = len
    ) -> None:
        """``drawn``: how many tokens ids stand for."""
        self._drawn = drawn
        self._matcher = StopMatcher(stops) if stops else None
        self._offset = 0
        # Characters before the held text; only a matcher needs them.
        self._released = 0
        self._held_ids: list[int] = []
        self._held: list[str] = []
        self._ready_ids: list[int] = []
        self._ready: list[str] = []
        # Tokens of the answer, those of a continued one included.
        self.tokens = 0

    @property
    def ready(self) -> bool:
        """Whether ``take`` has something."""
        return bool(self._ready_ids or self._ready)

    def push(self, token_ids: Sequence[int], texts: Sequence[str | None]) -> bool:
        """Add tokens, with their texts as in ``Step``. True: a stop string has matched.

        After a match the answer has ended: its text before the match, and the tokens up to the
        one that completed it, are ready; tokens after that one are dropped.
        """
        if self._matcher is not None:
            return self._push_matching(self._matcher, token_ids, texts)
        self.tokens += self._drawn(token_ids)
        self._held_ids += token_ids
        for text in texts:
            if text:
                self._held.append(text)
        if texts and texts[-1] is not None:
            self.flush()
        return False

    def _push_matching(
        self, matcher: StopMatcher, token_ids: Sequence[int], texts: Sequence[str | None]
    ) -> bool:
        for token_id, text in zip(token_ids, texts, strict=True):
            self.tokens += self._drawn((token_id,))
            self._held_ids.append(token_id)
            if text:
                self._held.append(text)
                start = matcher.feed(text)
                if start is not None:
                    self._held = ["".join(self._held)[: start - self._released]]
                    self.flush()
                    return True
            if text is not None and matcher.clean:
                self.flush()
        return False

    def replay(self, token_ids: Sequence[int], texts: Sequence[str | None]) -> bool:
        """Take in the tokens of an answer that is being continued; True as for ``push``.

        What may be sent of them is taken to have been sent; text still held is sent with later
        tokens, without the ids, which the caller has.
        """
        matched = False
        for token_id, text in zip(token_ids, texts, strict=True):
            matched = self.push((token_id,), (text,))
            if matched:
                break
        self.take()
        self._held_ids.clear()
        return matched

    def flush(self) -> None:
        """Make everything held ready: at a boundary, or because the answer has ended."""
        if self._matcher is not None:
            self._released += sum(map(len, self._held))
        self._ready_ids += self._held_ids
        self._ready += self._held
        self._held_ids.clear()
        self._held.clear()

    def take(self) -> Chunk:
        """Everything ready, as one chunk."""
        text = "".join(self._ready)
        chunk = Chunk(self._offset, text, self._ready_ids)
        self._offset += len(text) if text.isascii() else len(text.encode())
        self._ready_ids = []
        self._ready = []
        return chunk
