"""Titles of chats that were given none."""

from __future__ import annotations

import re

MAX_DERIVED_TITLE = 60

# The end of a sentence: its mark, followed by white space (so "3.14" is not one),
# or a mark of scripts that set none.
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s|(?<=[。！？])")
_BLANKS = re.compile(r"\s+")


def title_from(message: str) -> str:
    """Make a title of a chat's first message: its first sentence or line.

    At most `MAX_DERIVED_TITLE` characters, cut between words where there are any.
    """
    line = next((line for line in message.splitlines() if line.strip()), "")
    sentence = _SENTENCE_END.split(line.strip(), maxsplit=1)[0]
    # A mark alone ("?") is no title where more of the line is there.
    text = _BLANKS.sub(" ", sentence if any(c.isalnum() for c in sentence) else line).strip()
    if len(text) <= MAX_DERIVED_TITLE:
        return text
    cut = text[: MAX_DERIVED_TITLE - 1]
    if not text[MAX_DERIVED_TITLE - 1].isspace():
        cut = cut.rpartition(" ")[0] or cut
    return cut.rstrip(" ,;:-–—") + "…"
