"""Run a load test: `python -m parley_loadtest`, which is what `make loadtest` calls.

Options come from the command line or, as `make loadtest` passes them, from the
environment (HOST, API_KEY, USERS, SPAWN_RATE, DURATION, WORKERS, PROMPTS,
HIT_SHARE, THRESHOLDS, REPORTS, HEADLESS). What follows `--` goes to Locust as
it is. Without HOST, a platform on `sim` is started for the test.

Exit codes: 0 all well, 1 requests failed, 2 wrong options or nothing to test,
3 a threshold was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from parley_loadtest.target import LIKE_A_SMALL_GPU, NoTarget, sim_stack

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
NOTHING_TO_TEST = 2
SIM_THRESHOLDS = "errors<=0%"
_GROUP_SECONDS = 30.0
_POLL_SECONDS = 0.1


def read_options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Read the command line; give also what is meant for Locust."""
    own, _, rest = _split(arguments)
    environ = os.environ
    parser = argparse.ArgumentParser("parley_loadtest", description=__doc__.partition("\n\n")[0])

    def add(name: str, default: str, description: str) -> None:
        variable = name.replace("-", "_").upper()
        parser.add_argument(f"--{name}", default=environ.get(variable) or default, help=description)

    add("host", "", "base URL of a gateway; empty: start a platform on sim")
    add("api-key", "", "API key")
    add("users", "20", "people at once")
    add("spawn-rate", "10", "people who come per second")
    add("duration", "60s", "how long, as 90s or 5m")
    add("workers", "1", "generator processes; -1: one a core")
    add("prompts", "", "file of prompts")
    add("hit-share", "", "share of chats that begin with an answered question")
    add("thresholds", "", "what must be reached; see parley_loadtest.thresholds")
    add("reports", "reports", "folder of the reports")
    add("headless", "1", "0: Locust's web page instead, on port 8089")
    return parser.parse_args(own), rest


def _split(arguments: list[str]) -> tuple[list[str], str, list[str]]:
    if "--" not in arguments:
        return arguments, "", []
    at = arguments.index("--")
    return arguments[:at], "--", arguments[at + 1 :]


def locust_command(options: argparse.Namespace, host: str, folder: Path) -> list[str]:
    """The command that runs Locust; secrets go by the environment."""
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--host", host]
    command += ["--users", options.users, "--spawn-rate", options.spawn_rate]
    if options.headless not in {"0", "false", "no"}:
        command += ["--headless", "--run-time", options.duration, "--only-summary"]
        command += ["--stop-timeout", "15"]
    if options.workers not in {"", "0", "1"}:
        command += ["--processes", options.workers]
    command += ["--html", str(folder / "report.html"), "--csv", str(folder / "report")]
    command += ["--failures-file", str(folder / "failures.jsonl")]
    for flag in ("prompts", "hit_share", "thresholds"):
        if value := getattr(options, flag):
            command += [f"--{flag.replace('_', '-')}", value]
    return command


async def run_locust(command: list[str], api_key: str) -> int:
    """Run Locust to its end; a signal ends it in order, so that it still reports."""
    environment = {**os.environ, "LOADTEST_API_KEY": api_key}
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, start_new_session=True
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: _end(process))
    try:
        return await process.wait()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        _end(process)
        # Workers finish what they are reading after their master has gone.
        await _wait_for_group(process.pid)


def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()


async def _wait_for_group(group: int) -> None:
    """Wait until no process of the group is left; end what is, when it takes too long."""
    with contextlib.suppress(ProcessLookupError):
        for _ in range(int(_GROUP_SECONDS / _POLL_SECONDS)):
            os.killpg(group, 0)
            await asyncio.sleep(_POLL_SECONDS)
        os.killpg(group, signal.SIGKILL)


async def load_test(options: argparse.Namespace, rest: list[str]) -> int:
    """Find or start what is tested, test it, say where the reports are."""
    folder = Path(options.reports) / time.strftime("loadtest-%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    if options.host:
        code = await run_locust(
            [*locust_command(options, options.host, folder), *rest], options.api_key
        )
    else:
        options.thresholds = options.thresholds or SIM_THRESHOLDS
        print("No HOST given: starting a platform on sim…", flush=True)
        async with sim_stack(LIKE_A_SMALL_GPU) as stack:
            print(f"Ready at {stack.url}", flush=True)
            code = await run_locust(
                [*locust_command(options, stack.url, folder), *rest], options.api_key
            )
    print(f"Reports: {folder}/report.html, {folder}/report_stats.csv")
    if (folder / "failures.jsonl").exists():
        print(f"Failures in full: {folder}/failures.jsonl")
    return code


def main() -> int:
    """Run the load test; give the exit code."""
    options, rest = read_options(sys.argv[1:])
    try:
        return asyncio.run(load_test(options, rest))
    except NoTarget as exc:
        print(exc, file=sys.stderr)
        return NOTHING_TO_TEST


if __name__ == "__main__":
    sys.exit(main())
