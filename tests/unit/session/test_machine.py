"""Whatever callers do and whatever befalls replicas, in any order: all is as promised.

`make test-machine` plays far longer, and differently every time.
"""

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from parley_session.domain.model import Chat
from parley_session.runs.log import LogEntry
from support.session_machine import SessionMachine

EXAMPLES = int(os.environ.get("PARLEY_MACHINE_EXAMPLES", "0"))
PLAYED = settings(
    max_examples=EXAMPLES or 120,
    stateful_step_count=40,
    # In CI the same every time: what fails there is the change's own doing.
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
# A planted defect need not be made small.
UNTIL_FOUND = settings(PLAYED, max_examples=400, derandomize=True, phases=[Phase.generate])


def test_everything_is_as_promised() -> None:
    run_state_machine_as_test(SessionMachine, settings=PLAYED)


async def _said_to_be_done(*_: object, **__: object) -> bool:
    return True


def _skips(write: str) -> Callable[[SessionMachine], None]:
    """A store that says it has written, and has not."""
    return lambda machine: setattr(machine.world.store, write, _said_to_be_done)


def _leaves_turns(machine: SessionMachine) -> None:
    """A store that says a turn is settled, and leaves it there."""
    store = machine.world.store

    async def settle(chat_id: str, run_id: str, **_: object) -> Chat | None:
        chat = store._chats.get(chat_id)
        if chat is None or not chat.pending or chat.pending[0].run != run_id:
            return None
        return replace(chat, pending=chat.pending[1:])

    store.settle_turn = settle  # type: ignore[method-assign]


def _has_no_fence(machine: SessionMachine) -> None:
    """A log that takes what an older attempt writes."""
    log = machine.world.log

    def add(name: str, entry: LogEntry) -> None:
        stream = log._find(name)
        stream.entries.append(entry)
        stream.wake()

    log._add = add  # type: ignore[method-assign]


def _lets_logs_lie(machine: SessionMachine) -> None:
    """A log whose streams never expire."""
    machine.world.log._clock = lambda: 0.0


DEFECTS = {
    "no key": _skips("insert_key"),
    "no message": _skips("insert_message"),
    "no usage": _skips("insert_usage"),
    "no settling": _leaves_turns,
    "no deletion": _skips("delete_messages"),
    "no fence": _has_no_fence,
    "no expiry": _lets_logs_lie,
}


@pytest.mark.parametrize("defect", DEFECTS.values(), ids=DEFECTS)
def test_a_defect_is_found(defect: Callable[[SessionMachine], None]) -> None:
    class Defective(SessionMachine):
        def prepare(self) -> None:
            defect(self)

    with pytest.raises(AssertionError):
        run_state_machine_as_test(Defective, settings=UNTIL_FOUND)
