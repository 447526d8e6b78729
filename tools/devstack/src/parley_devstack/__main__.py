"""Starts and inspects the whole platform on this machine.

    python -m parley_devstack run        start everything and show it, until Ctrl-C
    python -m parley_devstack status     the parts of the running stack
    python -m parley_devstack setup      make what is needed and start nothing
    python -m parley_devstack preflight  say what this machine lacks
    python -m parley_devstack model      fetch and convert the small model

Settings come from the environment: ENGINE (vllm, sim, openai), MODEL, MODEL_ID, UPSTREAM,
UPSTREAM_KEY_FILE, PORT, GATEWAYS, SESSIONS, CACHES, ENGINES, AUTH (none, keys), OTLP_ENDPOINT,
MONGODB_URI, REDIS_URL.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import psutil
from rich.console import Console
from rich.table import Table

from parley_devstack import stackfile
from parley_devstack.board import Steps
from parley_devstack.bootstrap import preflight
from parley_devstack.config import StackConfig
from parley_devstack.core import StackCore
from parley_devstack.environments import inference, is_current, make
from parley_devstack.errors import DevstackError, PreflightError
from parley_devstack.models import make_model
from parley_devstack.preflight import has_gpu
from parley_devstack.run import first_key, run
from parley_devstack.setup import set_up
from parley_devstack.upstream import look_at_upstream

PIPE_WIDTH = 200


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(
        prog="parley_devstack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=("run", "status", "setup", "preflight", "model"))
    parser.add_argument(
        "--began", type=float, default=0.0, help="Unix time at which the set-up began"
    )
    options = parser.parse_args(argv)
    if options.began:
        began -= max(0.0, time.time() - options.began)
    # A pipe has no width; a table for it must not be cut to that of a terminal.
    console = Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)
    try:
        return _command(options.command, console, began)
    except DevstackError as error:
        Console(stderr=True).print(str(error), markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130


def _command(command: str, console: Console, began: float) -> int:
    config = StackConfig.from_environment()
    match command:
        case "status":
            return status(config, console)
        case "preflight":
            _preflight(config)
            console.print("This machine has what it needs.")
        case "model":
            environment = inference(config.paths, gpu=has_gpu())
            if not is_current(environment, config.paths):
                make(environment, config.paths, Steps(console))
            console.print(str(make_model(config.paths, Steps(console))))
        case "setup":
            set_up(config, console)
            console.print(f"Set up in {time.monotonic() - began:.0f} s.")
        case _:
            _preflight(config)
            set_up(config, console)
            key = first_key(config)
            core = StackCore(look_at_upstream(config))
            return run(core, console, began, key=key)
    return 0


def _preflight(config: StackConfig) -> None:
    owner = stackfile.owner(config.stack_json)
    if owner is not None:
        raise DevstackError(
            f"A stack is running here already (pid {owner}).",
            f"Stop it with Ctrl-C or `kill {owner}`, or see `make status`.",
        )
    wanted = [config.port + number for number in range(config.gateways)] if config.port else []
    if lacking := preflight(config.paths, config.engine, wanted):
        raise PreflightError("\n".join(lacking))


def status(config: StackConfig, console: Console) -> int:
    """Prints the parts of the running stack; 1 if there is none."""
    content = stackfile.read(config.stack_json)
    if content is None or stackfile.owner(config.stack_json) is None:
        console.print("No stack is running here: start one with `make run`.")
        return 1
    table = Table(box=None, pad_edge=False)
    for column in ("part", "state", "pid", "address", "admin", "log"):
        table.add_column(column, header_style="dim", no_wrap=True)
    for part in content["processes"]:
        alive = part["pid"] is not None and psutil.pid_exists(part["pid"])
        table.add_row(
            part["name"],
            part["state"] if alive or part["state"] == "stopped" else "died",
            str(part["pid"] or ""),
            part["http"] or part["grpc"],
            part["admin"],
            part["log"],
        )
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
