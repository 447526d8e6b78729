"""The first step on a fresh machine: preflight, then the development environment.

    PYTHONPATH=tools/devstack/src python3 -m parley_devstack.bootstrap --engine sim

Runs on the bare Python. Everything after it (the engine's environment, the Java parts,
the model, the stack) is `python -m parley_devstack` inside the environment made here.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - before anything that an older Python cannot read
    sys.exit(
        "Python {}.{} is too old: install 3.11 or newer, or name one: PYTHON=python3.12".format(
            *sys.version_info[:2]
        )
    )

import argparse
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from parley_devstack.config import ENGINES, StackConfig
from parley_devstack.environments import (
    STEP_SECONDS,
    child_environment,
    development,
    inference,
    is_current,
    make,
)
from parley_devstack.errors import DevstackError
from parley_devstack.paths import Paths, checkout
from parley_devstack.preflight import check_machine, check_ports, look

STILL_SECONDS = 15.0


def run_plainly(title: str, command: Sequence[str], log: Path) -> int:
    """Runs a command with its output in `log`, saying every quarter minute that it goes on."""
    began = time.monotonic()
    print(f"  {title} …", flush=True)
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=child_environment(),
        )
    try:
        while True:
            try:
                code = process.wait(STILL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                passed = time.monotonic() - began
                if passed > STEP_SECONDS:
                    raise
                print(f"  {title}: still going after {passed:.0f} s ({log})", flush=True)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    print(f"  {title}: {time.monotonic() - began:.1f} s", flush=True)
    return code


def preflight(paths: Paths, engine: str, ports: Sequence[int]) -> list[str]:
    """Returns everything that stands in the way on this machine."""
    paths.home.mkdir(parents=True, exist_ok=True)
    machine = look(paths.root)
    needed = [development(paths)]
    if engine == "vllm":
        needed.append(inference(paths, gpu=machine.has_gpu))
    installed = all(is_current(environment, paths) for environment in needed)
    return check_machine(machine, engine, installed=installed) + check_ports(ports)


def main(argv: Sequence[str] | None = None) -> int:
    """Checks the machine and makes `.venv`; returns the exit code."""
    try:
        # What a person has mistyped is told in their own terms, before anything else.
        StackConfig.from_environment()
    except DevstackError as error:
        print(error, file=sys.stderr)
        return 2
    return _make_ready(_options(argv))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="parley_devstack.bootstrap")
    parser.add_argument("--engine", choices=ENGINES, default="vllm")
    parser.add_argument("--port", type=int, action="append", default=[], help="a port to serve on")
    parser.add_argument("--only-preflight", action="store_true", help="check and make nothing")
    parser.add_argument("--quiet", action="store_true", help="no checks where all is set up")
    return parser.parse_args(argv)


def _make_ready(options: argparse.Namespace) -> int:
    paths = checkout()
    environment = development(paths)
    if options.quiet and is_current(environment, paths):
        return 0
    # Once psutil is there, `parley_devstack run` looks at the ports and can say who has them.
    ports = [] if is_current(environment, paths) else options.port
    lacking = preflight(paths, options.engine, ports)
    if lacking:
        print("This machine is not ready; nothing was downloaded:", file=sys.stderr)
        for sentence in lacking:
            print(f"  - {sentence}", file=sys.stderr)
        return 1
    if options.only_preflight:
        print("This machine has what it needs.")
        return 0
    try:
        if not is_current(environment, paths):
            print(f"Setting up in {os.path.relpath(paths.root)}", flush=True)
            make(environment, paths, run_plainly)
    except DevstackError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
