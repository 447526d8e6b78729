"""Which spellings of a question are the same question in the exact tier.

What is only formatting is taken away:

- canonical composition (NFC: a precomposed letter equals the composed one);
- line ends (CRLF and CR are LF), blank lines and spaces around the text,
  spaces at a line's end, more than one blank line in a row;
- runs of spaces, tabs and other horizontal white space inside a line.

What can carry meaning is kept: case ("polish" and "Polish"), punctuation,
line breaks, compatibility characters ("x²" is not "x2"), the indentation of
later lines, and every character of fenced code and of a line's quoted or
backticked parts ("how many spaces are in 'a  b'"). A difference kept without
need costs a miss; one lost wrongly would serve a wrong answer.
"""

from __future__ import annotations

import re
import unicodedata

_FENCE = re.compile(r"[ \t]{0,3}(?P<mark>`{3,}|~{3,})")
_RUN = re.compile(r"[^\S\n]+")
# An opening quote is kept verbatim up to the line's end; an apostrophe is not one.
_QUOTE = re.compile(r"[\"`“”„«»‘‚‹]|(?<!\w)'")


def normalise_question(text: str) -> str:
    """Give the form of `text` by which the exact tier compares questions."""
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")
    lines: list[str] = []
    fence = ""
    for line in text.split("\n"):
        opened = _FENCE.match(line)
        if fence:
            lines.append(line)
            if opened and _closes(line, fence):
                fence = ""
            continue
        if opened:
            fence = opened["mark"]
            lines.append(line.rstrip())
            continue
        tidy = _tidy_line(line)
        if tidy or (lines and lines[-1]):
            lines.append(tidy)
    while lines and not lines[-1].strip():
        lines.pop()
    if lines and not _FENCE.match(lines[0]):
        lines[0] = lines[0].lstrip()
    return "\n".join(lines)


def _closes(line: str, fence: str) -> bool:
    mark = line.strip()
    return len(mark) >= len(fence) and set(mark) == {fence[0]}


def _tidy_line(line: str) -> str:
    body = line.lstrip()
    indent = line[: len(line) - len(body)]
    quote = _QUOTE.search(body)
    if quote is None:
        return (indent + _RUN.sub(" ", body)).rstrip()
    head, rest = body[: quote.start()], body[quote.start() :]
    return (indent + _RUN.sub(" ", head) + rest).rstrip()
