"""What a person sees: steps of the set-up, then a board of the parts.

On a terminal a table that changes in place; elsewhere a line for each thing that happens.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from parley_devstack.bootstrap import run_plainly
from parley_devstack.environments import STEP_SECONDS, child_environment
from parley_devstack.process import Process, State, tail

REFRESH_SECONDS = 0.25
STYLES = {
    State.PLANNED: "dim",
    State.STARTING: "yellow",
    State.READY: "green",
    State.PAUSED: "magenta",
    State.STOPPING: "yellow",
    State.STOPPED: "dim",
    State.DIED: "bold red",
}


class Steps:
    """Runs the long steps of a set-up, with a spinner, the time and the last line of output."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, title: str, command: Sequence[str], log: Path) -> int:
        """Runs a command to its end with its output in `log`; returns the exit code."""
        log.parent.mkdir(parents=True, exist_ok=True)
        if not self._console.is_terminal:
            return run_plainly(title, command, log)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[output]}", markup=True),
        )
        with (
            Progress(*columns, console=self._console) as progress,
            log.open("ab") as file,
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=child_environment(),
            ) as process,
        ):
            task = progress.add_task(title, total=None, output="")
            deadline = time.monotonic() + STEP_SECONDS
            try:
                while True:
                    try:
                        return process.wait(REFRESH_SECONDS)
                    except subprocess.TimeoutExpired:
                        if time.monotonic() > deadline:
                            raise
                        last = tail(log, 1)
                        progress.update(task, output=_shortened(last[0] if last else ""))
            finally:
                if process.poll() is None:
                    process.kill()


class Board:
    """The parts of a stack while it starts and runs."""

    def __init__(self, console: Console, processes: Sequence[Process]) -> None:
        self._console = console
        self._processes = processes
        self._seen: dict[str, State] = {}
        self._live: Live | None = None

    def __enter__(self) -> Board:
        if self._console.is_terminal:
            self._live = Live(
                self._table(), console=self._console, refresh_per_second=1 / REFRESH_SECONDS
            )
            self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
            self._live.__exit__(None, None, None)
            self._live = None

    def refresh(self) -> None:
        """Shows what has changed since the last time."""
        if self._live is not None:
            self._live.update(self._table())
            return
        for process in self._processes:
            state = process.state
            if self._seen.get(process.name, State.PLANNED) is not state:
                self._seen[process.name] = state
                self._console.print(_line(process), highlight=False, soft_wrap=True)

    def tell(self, text: str) -> None:
        """Prints a text that stays, above the table."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for column in ("part", "state", "address", "time", "log"):
            table.add_column(column, header_style="dim", no_wrap=True)
        for process in self._processes:
            state = process.state
            waiting = state is State.STARTING and process.plan.note
            table.add_row(
                process.name,
                Text(f"{state} ({process.plan.note})" if waiting else state, STYLES[state]),
                process.plan.address,
                _time(process),
                _relative(process.plan.log),
            )
        return table


def _line(process: Process) -> str:
    parts = [process.name, process.state.value]
    if process.state is State.STARTING and process.plan.note:
        parts.append(f"({process.plan.note})")
    if process.state is State.READY:
        parts += [f"in {_time(process)}", "at", process.plan.address]
    if process.state in (State.STARTING, State.DIED):
        parts += ["log", _relative(process.plan.log)]
    return "  " + " ".join(parts)


def _time(process: Process) -> str:
    if process.ready_after is not None:
        return f"{process.ready_after:.1f} s"
    if process.state is State.STARTING:
        return f"{time.monotonic() - process.started_at:.0f} s"
    return ""


def _relative(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _shortened(line: str, width: int = 60) -> str:
    return line.strip().replace("[", "(")[:width]
