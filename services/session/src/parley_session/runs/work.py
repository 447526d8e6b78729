"""One attempt at one run, as far as it has come."""

from __future__ import annotations

from dataclasses import dataclass, field

from parley_session.answers.asked import Asked
from parley_session.answers.deciding import Decision
from parley_session.context.prompt import Prompt
from parley_session.domain.model import Chat, Run, Usage
from parley_session.runs.holding import Hold
from parley_session.runs.live import LiveRun
from parley_session.runs.signal import StopSignal
from parley_session.runs.writing import Writer


@dataclass(frozen=True, slots=True)
class Known:
    """What acceptance knows of a run that it has inserted as held."""

    prompt: Prompt
    # As the acceptance has left it.
    chat: Chat
    # Looked up while the run was inserted; the run's task drops what it does not take.
    asked: Asked


@dataclass(slots=True)
class Work:
    """What the steps of making an answer hand to each other."""

    hold: Hold
    live: LiveRun
    signal: StopSignal
    writer: Writer
    # When the run is to end, in the loop's time: reckoned once, so that a wall clock that
    # leaps meanwhile ends no answer.
    deadline: float
    # What acceptance has built, or the step that fixes it.
    prompt: Prompt | None = None
    # As acceptance has left it, where it was here.
    chat: Chat | None = None
    # Begun by acceptance; None: the question is yet to be looked up.
    asked: Asked | None = None
    decision: Decision | None = None
    usage: Usage = field(default_factory=Usage)
    # Seconds from acceptance to the first text.
    first_token: float | None = None

    @property
    def run(self) -> Run:
        """The run as it was held."""
        return self.hold.run
