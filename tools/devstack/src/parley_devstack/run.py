"""`make run`: starts a stack, shows it, and ends it on Ctrl-C."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
import time

from rich.console import Console

from parley_devstack.board import REFRESH_SECONDS, Board
from parley_devstack.config import StackConfig
from parley_devstack.core import StackCore
from parley_devstack.errors import DevstackError, SetupError

# A small model answers sensibly when it is not made to draw lots.
QUESTION = (
    '{"message": "What is the capital of France?", "stream": true, "options": {"temperature": 0}}'
)
KEY_HINT = "The key above is shown only now; more: python -m parley_gateway.keys"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(core: StackCore, console: Console, began: float, *, key: str = "") -> int:
    """Runs until a signal comes; `began` is when the set-up began (monotonic seconds).

    The first signal ends the stack in order, the second one at once. `key` is an API key
    that was made for this start. Returns the exit code.
    """
    stopping = threading.Event()
    failures: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
    up = threading.Event()
    over = threading.Event()

    def stop(*_: object) -> None:
        if stopping.is_set():
            core.hurry()
        stopping.set()
        core.cancel()

    def live() -> None:
        """The stack's own thread: children end with it."""
        try:
            core.start()
            up.set()
            while not stopping.wait(REFRESH_SECONDS):
                core.watch()
        except BaseException as error:  # noqa: BLE001 - handed to the main thread
            failures.put(error)
        finally:
            core.stop()
            over.set()

    for number in STOP_SIGNALS:
        signal.signal(number, stop)
    thread = threading.Thread(target=live, name="stack")
    thread.start()
    with Board(console, core.snapshot()) as board:
        told = asked = False
        while not over.wait(REFRESH_SECONDS):
            board.refresh()
            while core.events:
                board.tell("\n" + core.events.popleft() + "\n")
            if up.is_set() and not told:
                told = True
                board.tell(welcome(core, time.monotonic() - began, key))
            if stopping.is_set() and not asked:
                asked = True
                board.tell("Stopping; once more ends everything at once.")
        board.refresh()
    thread.join()
    if not failures.empty():
        error = failures.get()
        if stopping.is_set() and isinstance(error, DevstackError):
            return 130
        if not isinstance(error, DevstackError):
            raise error
        console.print(f"\n{error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    return 0


def first_key(config: StackConfig) -> str:
    """Makes an API key for a stack with `auth=keys` that has none; returns it, or "".

    It is shown once: the file keeps its hash.
    """
    keys = config.data_dir / "keys.json"
    if config.auth != "keys" or keys.exists():
        return ""
    keys.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "parley_gateway.keys", "create", "--tenant", "default"]
    made = subprocess.run(
        [*command, "--file", str(keys)], capture_output=True, text=True, timeout=60, check=False
    )
    if made.returncode != 0:
        raise SetupError(f"No API key could be made: {made.stderr.strip()}")
    return made.stdout.strip().splitlines()[-1]


def welcome(core: StackCore, seconds: float, key: str) -> str:
    """Returns what to do with a stack that has just become ready."""
    config = core.config
    url = core.layout.gateway_urls[0]
    header = f" -H 'Authorization: Bearer {key or '$PARLEY_KEY'}'" if config.auth == "keys" else ""
    lines = [
        f"\nReady after {seconds:.0f} s. Try:",
        "",
        f"  curl -N {url}/chat{header} -H 'content-type: application/json' \\",
        f"    -d '{QUESTION}'",
        "",
        f"  curl {url}/chats{header}",
        "",
        f"  API     {' '.join(core.layout.gateway_urls)} (documentation at {url}/docs)",
        f"  data    {config.data_dir}",
        f"  logs    {config.logs_dir}",
        f"  parts   {config.stack_json}",
        "",
        *(
            ["The key above is shown only now; more: python -m parley_gateway.keys", ""]
            if key
            else []
        ),
        "Ctrl-C ends everything; what was said is there again at the next start.",
    ]
    return "\n".join(lines) + "\n"
