"""Runs the processes of a stack: starts by readiness, watches, ends in reverse order.

Blocking and meant for one thread, apart from `snapshot` and `cancel`; `stack.Stack` is the
asynchronous face of it, `run` the one with a board.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from parley_devstack import ports, stackfile
from parley_devstack.config import StackConfig
from parley_devstack.errors import DevstackError, PortInUseError, StartError
from parley_devstack.parts import Layout, lay_out
from parley_devstack.process import Process, State

POLL_SECONDS = 0.05
MAX_EVENTS = 200
STARTING_STOP_SECONDS = 3.0
GUARD = Path(__file__).with_name("guard.py")


class StackCore:
    """The processes of one stack."""

    def __init__(self, config: StackConfig, layout: Layout | None = None) -> None:
        self.config = config
        self.layout = layout if layout is not None else lay_out(config)
        self.processes = {plan.name: Process(plan) for plan in self.layout.plans()}
        self.events: deque[str] = deque(maxlen=MAX_EVENTS)
        self._guard: subprocess.Popen[str] | None = None
        self._cancelled = threading.Event()
        self._hurried = threading.Event()

    # Starting

    def start(self) -> None:
        """Starts every part but the spare ones, wave after wave.

        Raises DevstackError when another stack has the same files, PortInUseError,
        StartError when a part died or took too long; whatever was started is ended then.
        """
        self._claim()
        try:
            self._check_ports()
            self._start_guard()
            deadline = time.monotonic() + self.config.start_seconds
            for wave in self.layout.waves():
                self._start([self.processes[name] for name in wave], deadline)
        except BaseException:
            self.stop()
            raise

    def cancel(self) -> None:
        """Makes a `start` that is under way end with StartError; from any thread."""
        self._cancelled.set()

    def hurry(self) -> None:
        """Makes a `stop` that is under way kill what is left; from any thread."""
        self._hurried.set()
        for process in self.processes.values():
            process.kill_group()

    def start_one(self, name: str) -> None:
        """Starts a part that was stopped, killed, or kept as a spare, on its own address."""
        process = self._process(name)
        if process.pid is not None:
            raise DevstackError(f"{name} is running (pid {process.pid}).")
        self._start([process], time.monotonic() + self.config.start_seconds)

    def _claim(self) -> None:
        owner = stackfile.owner(self.config.stack_json)
        if owner is not None:
            raise DevstackError(
                f"A stack is running here already (pid {owner}).",
                f"Stop it with Ctrl-C or `kill {owner}`, or see `make status`.",
            )

    def _check_ports(self) -> None:
        for plan in self.layout.plans():
            host, _, port = plan.address.rpartition(":")
            if plan.kind == "gateway" and not ports.is_free(int(port), host):
                raise PortInUseError(
                    f"Port {port} is in use by {ports.holder(int(port))}.",
                    f"Stop that, or choose another one: PORT={int(port) + 10}.",
                )

    def _start(self, processes: Sequence[Process], deadline: float) -> None:
        for process in processes:
            pid = process.spawn()
            self._tell_guard("add", pid)
        self._write()
        waiting = list(processes)
        while waiting:
            for process in list(waiting):
                state = process.check()
                if state is State.READY:
                    waiting.remove(process)
                    self._write()
                elif state is State.DIED:
                    raise process.start_error()
            self._check_dead()
            if self._cancelled.is_set():
                raise StartError("The start was cancelled.")
            if waiting and time.monotonic() > deadline:
                raise waiting[0].start_error()
            self._cancelled.wait(POLL_SECONDS if waiting else 0)

    # While it runs

    def watch(self) -> list[str]:
        """Looks at every process once; returns a report for each that has died since."""
        died = self._check_dead()
        if died:
            self._write()
        return died

    def _check_dead(self) -> list[str]:
        died = []
        for process in self.processes.values():
            before = process.state
            pid = process.pid
            watched = before in (State.READY, State.PAUSED, State.STOPPING)
            if watched and process.check() is State.DIED:
                died.append(process.obituary())
                if pid is not None:
                    self._tell_guard("remove", pid)
        self.events.extend(died)
        return died

    def kill(self, name: str) -> None:
        """Ends a part as a crash would."""
        process = self._process(name)
        pid = process.pid
        process.kill()
        if pid is not None:
            self._tell_guard("remove", pid)
        self._write()

    def stop_one(self, name: str) -> None:
        """Ends a part as an operator would, and kills it when its grace is over."""
        self._stop_all([self._process(name)])
        self._write()

    def terminate(self, name: str) -> None:
        """Sends SIGTERM to a part and does not wait; `stop_one` and `watch` see its end."""
        self._process(name).ask_to_stop()
        self._write()

    def pause(self, name: str) -> None:
        """Stops a part where it is; its connections stay open."""
        self._process(name).pause()
        self._write()

    def resume(self, name: str) -> None:
        """Lets a paused part go on."""
        self._process(name).resume()
        self._write()

    def next_spare(self, kind: str) -> str:
        """Returns the name of a spare of that kind that has never been started."""
        for name in sorted(self.layout.spare):
            process = self.processes[name]
            if process.plan.kind == kind and process.state is State.PLANNED:
                return name
        raise DevstackError(f"No spare {kind} is left; StackConfig.spare says how many there are.")

    def snapshot(self) -> list[Process]:
        """Returns the processes in starting order, to look at; from any thread."""
        return [p for p in self.processes.values() if p.state is not State.PLANNED] or list(
            self.processes.values()
        )

    # Ending

    def stop(self) -> None:
        """Ends everything that was started, in reverse order, and removes stack.json."""
        for stage in reversed(self.layout.stages):
            self._stop_all([self.processes[plan.name] for plan in reversed(stage)])
        self._stop_guard()
        if (found := stackfile.read(self.config.stack_json)) and found["pid"] == os.getpid():
            self.config.stack_json.unlink()

    def _stop_all(self, processes: Sequence[Process]) -> None:
        running = [(process, process.pid) for process in processes if process.pid is not None]
        graces = {process.name: self._grace(process) for process, _ in running}
        began = time.monotonic()
        for process, _ in running:
            process.ask_to_stop()
        for process, pid in running:
            process.wait_stopped(began + graces[process.name])
            if pid is not None:
                self._tell_guard("remove", pid)

    def _grace(self, process: Process) -> float:
        if self._hurried.is_set():
            return 0.0
        # What has not begun to serve has nothing to finish; a model that loads does not listen.
        limit = STARTING_STOP_SECONDS if process.state is State.STARTING else float("inf")
        return min(self.config.stop_seconds, limit)

    def _process(self, name: str) -> Process:
        try:
            return self.processes[name]
        except KeyError:
            names = ", ".join(self.processes)
            raise DevstackError(f"There is no part {name}; there are {names}.") from None

    def _write(self) -> None:
        stackfile.write(
            self.config.stack_json,
            [p for p in self.processes.values() if p.state is not State.PLANNED],
            engine=self.config.engine,
            urls=list(self.layout.gateway_urls),
            data=str(self.config.data_dir),
        )

    # The guard

    def _start_guard(self) -> None:
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", GUARD, str(self.config.stop_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def _tell_guard(self, verb: str, pid: int) -> None:
        pipe: IO[str] | None = self._guard.stdin if self._guard is not None else None
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.write(f"{verb} {pid}\n")
                pipe.flush()

    def _stop_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            with contextlib.suppress(BrokenPipeError):
                guard.communicate(timeout=self.config.stop_seconds + 5)
