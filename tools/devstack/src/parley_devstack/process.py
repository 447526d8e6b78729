"""One process of the stack: its start, its log, its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO

from parley_devstack.errors import StartError

LAUNCHER = Path(__file__).with_name("launcher.py")
KILL_SECONDS = 10.0
TAIL_LINES = 8
TAIL_BYTES = 64 * 1024


class State(StrEnum):
    """Where a process is in its life."""

    PLANNED = "planned"
    STARTING = "starting"
    READY = "ready"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DIED = "died"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a process runs and where it is reached. Addresses are "host:port", or ""."""

    name: str
    kind: str
    command: Sequence[str]
    env: Mapping[str, str]
    log: Path
    cwd: Path
    ready: Callable[[], bool]
    grpc: str = ""
    http: str = ""
    admin: str = ""
    note: str = ""  # what is worth saying on the board while it starts

    @property
    def address(self) -> str:
        """The address that its users call."""
        return self.http or self.grpc


@dataclass(slots=True)
class Process:
    """A planned process and what became of it. Used by one thread at a time."""

    plan: Plan
    state: State = State.PLANNED
    started_at: float = 0.0  # monotonic seconds
    ready_after: float | None = None  # seconds
    exit_code: int | None = None
    _popen: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The name on the board and in stack.json."""
        return self.plan.name

    @property
    def pid(self) -> int | None:
        """The pid while the process is there; also the id of its process group."""
        return self._popen.pid if self._popen is not None else None

    def spawn(self) -> int:
        """Starts the process in a group of its own and returns its pid."""
        self.plan.log.parent.mkdir(parents=True, exist_ok=True)
        log: IO[bytes]
        with self.plan.log.open("ab") as log:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            log.write(f"--- {stamp} {' '.join(self.plan.command)}\n".encode())
            log.flush()
            self._popen = subprocess.Popen(
                [sys.executable, "-I", "-S", LAUNCHER, str(os.getpid()), *self.plan.command],
                env=dict(self.plan.env),
                cwd=self.plan.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started_at = time.monotonic()
        self.ready_after = self.exit_code = None
        self.state = State.STARTING
        return self._popen.pid

    def check(self) -> State:
        """Looks at the process once: is it ready, has it died?"""
        if self._popen is None:
            return self.state
        code = self._popen.poll()
        if code is not None:
            self._reap(code)
            self.state = State.STOPPED if self.state is State.STOPPING else State.DIED
        elif self.state is State.STARTING and self.plan.ready():
            self.ready_after = time.monotonic() - self.started_at
            self.state = State.READY
        return self.state

    def pause(self) -> None:
        """Stops the whole group where it is: connections stay open and nothing answers."""
        self._signal_group(signal.SIGSTOP)
        self.state = State.PAUSED

    def resume(self) -> None:
        """Lets a paused group go on."""
        self._signal_group(signal.SIGCONT)
        self.state = State.READY

    def ask_to_stop(self) -> None:
        """Asks the process to end (SIGTERM), paused or not."""
        if self._popen is not None:
            self.state = State.STOPPING
            self._popen.send_signal(signal.SIGTERM)
            self._signal_group(signal.SIGCONT)

    def wait_stopped(self, deadline: float) -> None:
        """Waits until `deadline` (monotonic) for the process, then kills its group."""
        if self._popen is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(max(0.0, deadline - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """Ends the whole group at once (SIGKILL)."""
        if self._popen is None:
            return
        self._signal_group(signal.SIGKILL)
        self._reap(self._popen.wait(KILL_SECONDS))
        self.state = State.STOPPED

    def kill_group(self) -> None:
        """Sends SIGKILL to the group and does not wait; from any thread."""
        self._signal_group(signal.SIGKILL)

    def _reap(self, code: int) -> None:
        self._signal_group(signal.SIGKILL)  # what it left behind, such as an engine's workers
        self.exit_code = code
        self._popen = None

    def _signal_group(self, number: signal.Signals) -> None:
        popen = self._popen
        if popen is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(popen.pid, number)

    def obituary(self) -> str:
        """Returns how the process ended, in a sentence, and the last lines of its log."""
        lines = [f"{self.name} {_ending(self.exit_code)}. The last lines of {self.plan.log}:"]
        return "\n".join([*lines, *(f"  {line}" for line in tail(self.plan.log))])

    def start_error(self) -> StartError:
        """Returns the error to raise when the process died instead of becoming ready."""
        return StartError(self.obituary())


def _ending(code: int | None) -> str:
    if code is None:
        return "did not become ready in time"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def tail(path: Path, count: int = TAIL_LINES) -> list[str]:
    """Returns the last lines of a log file, none if there is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return list(deque(text.splitlines(), maxlen=count))
