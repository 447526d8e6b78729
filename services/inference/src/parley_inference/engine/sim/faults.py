"""Faults on request: a directive in the last user message tells the simulator to misbehave.

Read only where ``PARLEY_INFERENCE_SIM_FAULTS`` is true. ``[[sim:KIND NAME=VALUE …]]`` with

=========  ==========================================================================
KIND       what happens
=========  ==========================================================================
fail       this request is lost after ``after`` tokens (0: before the first)
kill       the engine dies after ``after`` tokens; the process lives and says so
die        the process exits at once after ``after`` tokens, as in a crash
hang       nothing more is drawn after ``after`` tokens
slow       ``itl`` seconds between tokens, for this request alone
length     an answer of ``tokens`` tokens, whatever the settings say
=========  ==========================================================================

``after`` counts tokens of the answer. Faults strike an answer's first attempt only: a request
that continues an answer is served as if the directive were not there, but for ``slow`` and
``length``, which hold for all of it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from parley_inference.engine.base import Message

_DIRECTIVE = re.compile(r"\[\[sim:([a-z]+)((?: [a-z]+=[0-9.]{1,10}){0,4})\]\]")
_STRIKES = frozenset({"fail", "kill", "die", "hang"})


@dataclass(frozen=True, slots=True)
class Faults:
    """What one request asks for. ``strike`` is empty or one of fail, kill, die, hang."""

    strike: str = ""
    after: int = 0
    itl: float | None = None
    tokens: int | None = None


NO_FAULTS = Faults()


def parse(messages: Sequence[Message], *, continued: bool) -> Faults:
    """Read the directives of the last message; unknown ones are plain text."""
    strike, after = "", 0
    itl: float | None = None
    tokens: int | None = None
    for kind, rest in _DIRECTIVE.findall(messages[-1].content if messages else ""):
        values = _values(rest)
        if kind in _STRIKES and not continued:
            strike, after = kind, int(values.get("after", 0))
        elif kind == "slow":
            itl = values.get("itl", 0.5)
        elif kind == "length":
            tokens = max(int(values.get("tokens", 1)), 1)
    return Faults(strike, after, itl, tokens)


def _values(text: str) -> dict[str, float]:
    values = {}
    for part in text.split():
        name, _, number = part.partition("=")
        if number.count(".") <= 1 and number.strip("."):
            values[name] = float(number)
    return values
