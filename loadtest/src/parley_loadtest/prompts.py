"""What people ask: questions that no one asked before, or ones asked already.

A question of one's own is made unique by a case number, so that no cache can
answer it unless the test wants that: with a hit share, that share of chats
begins with a question that the same user has had answered before.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_REMEMBERED = 64
MAX_PROMPT_CHARACTERS = 200_000

_SUBJECTS = (
    *("a heat pump", "a bicycle gear", "sourdough bread", "a suspension bridge", "photosynthesis"),
    *("a compiler", "compound interest", "a jet engine", "the water cycle", "a database index"),
    *("vaccination", "glass blowing", "a tidal power plant", "a violin", "public-key encryption"),
)
_REQUESTS = (
    "Explain how {subject} works to somebody who has never heard of it.",
    "What are the most common mistakes people make about {subject}?",
    "Give me a short checklist for judging the quality of {subject}.",
    "Compare {subject} with the next best alternative.",
    "Tell the story of how {subject} came about.",
)
_FOLLOW_UPS = (
    "Can you give an example?",
    "Please say that in simpler words.",
    "Why is that so?",
    "What would be the opposite view?",
    "Summarise what you have said in two sentences.",
)


class PromptFileError(ValueError):
    """A prompt file cannot be used; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class Talk:
    """The questions of one chat, the first one first."""

    first: str
    follow_ups: tuple[str, ...]
    repeated: bool
    """The first one has been answered to this user before."""


@dataclass(frozen=True, slots=True)
class Script:
    """What a talk is made from."""

    first: str
    follow_ups: tuple[str, ...]


def built_in_scripts() -> list[Script]:
    """The questions that come with the load test."""
    return [
        Script(request.format(subject=subject), _FOLLOW_UPS)
        for subject in _SUBJECTS
        for request in _REQUESTS
    ]


def read_scripts(path: Path) -> list[Script]:
    """Read a prompt file: a prompt a line, or JSON lines `{"prompt", "followUps"?}`.

    Raises:
        PromptFileError: it cannot be read, has no prompts, or a line is wrong.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise PromptFileError(f"{path}: cannot be read as UTF-8: {exc}") from exc
    scripts = [
        script
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip()
        for script in _read_line(path, number, line)
    ]
    if not scripts:
        raise PromptFileError(f"{path}: has no prompts")
    return scripts


def _read_line(path: Path, number: int, line: str) -> Iterator[Script]:
    if not line.lstrip().startswith("{"):
        yield Script(_checked(path, number, line.strip()), _FOLLOW_UPS)
        return
    try:
        fields = json.loads(line)
    except ValueError as exc:
        raise PromptFileError(f"{path}:{number}: is not JSON: {exc}") from exc
    follow_ups = fields.get("followUps", list(_FOLLOW_UPS))
    if not isinstance(follow_ups, list):
        raise PromptFileError(f"{path}:{number}: followUps must be a list")
    yield Script(
        _checked(path, number, fields.get("prompt")),
        tuple(_checked(path, number, text) for text in follow_ups),
    )


def _checked(path: Path, number: int, text: object) -> str:
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_PROMPT_CHARACTERS:
        raise PromptFileError(f"{path}:{number}: a prompt must be text, and not blank")
    return text


class Asker:
    """Decides what one user asks.

    Args:
        scripts: to draw from.
        hit_share: of chats that begin with a question answered before, 0 to 1.
        draw: the source of chance.
    """

    def __init__(self, scripts: Sequence[Script], hit_share: float, draw: random.Random) -> None:
        self._scripts = scripts
        self._hit_share = hit_share
        self._draw = draw
        self._answered: deque[str] = deque(maxlen=MAX_REMEMBERED)

    def talk(self, turns: int) -> Talk:
        """Make a talk of so many questions."""
        script = self._draw.choice(self._scripts)
        follow_ups = tuple(
            self._draw.choice(script.follow_ups or _FOLLOW_UPS) for _ in range(max(0, turns - 1))
        )
        if self._answered and self._draw.random() < self._hit_share:
            return Talk(self._draw.choice(self._answered), follow_ups, repeated=True)
        case = f"{self._draw.getrandbits(48):012x}"
        return Talk(f"{script.first} (Case {case}.)", follow_ups, repeated=False)

    def answered(self, first: str) -> None:
        """Note that a chat's first question was answered whole."""
        if self._hit_share > 0:
            self._answered.append(first)
