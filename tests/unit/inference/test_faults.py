"""Fault directives are read from the last message, and only as written."""

import pytest

from parley_inference.engine.base import Message, Role
from parley_inference.engine.sim.faults import NO_FAULTS, Faults, parse


def ask(text: str, *, continued: bool = False) -> Faults:
    return parse([Message(Role.USER, text)], continued=continued)


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("hello", NO_FAULTS),
        ("[[sim:fail]] please", Faults("fail", 0)),
        ("go [[sim:die after=5]]", Faults("die", 5)),
        ("[[sim:hang after=3]]", Faults("hang", 3)),
        ("[[sim:kill after=1]]", Faults("kill", 1)),
        ("[[sim:slow itl=0.25]]", Faults(itl=0.25)),
        ("[[sim:length tokens=200]] [[sim:fail after=9]]", Faults("fail", 9, None, 200)),
        ("[[sim:unknown after=3]]", NO_FAULTS),
        ("[[sim:fail after=]]", NO_FAULTS),
        ("[[sim:slow itl=1.2.3]]", Faults(itl=0.5)),
        ("[[sim:fail after=9999999999]]", Faults("fail", 9999999999)),
    ],
)
def test_directives(text: str, faults: Faults) -> None:
    assert ask(text) == faults


def test_a_continued_answer_is_not_struck_again() -> None:
    text = "[[sim:die after=5]][[sim:slow itl=0.1]]"
    assert ask(text, continued=True) == Faults(itl=0.1)
