from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from parley_devstack import stackfile
from parley_devstack.core import StackCore
from parley_devstack.errors import DevstackError, PortInUseError, StartError
from parley_devstack.process import State
from support.tiny_stack import tiny_core

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

TINY = [sys.executable, "-m", "support.tiny_stack"]
TESTS = Path(__file__).parents[2]


def wait_until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def group_of(pid: int) -> list[psutil.Process]:
    """Living processes of a process group."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.fixture
def core(tmp_path: Path) -> Iterator[StackCore]:
    core = tiny_core(tmp_path)
    core.start()
    yield core
    core.stop()


def pids(core: StackCore) -> dict[str, int]:
    return {p.name: p.pid for p in core.processes.values() if p.pid is not None}


def test_start_brings_up_all_parts_but_the_spares(core: StackCore) -> None:
    assert set(pids(core)) == {"store", "engine-1", "gateway-1"}
    content = stackfile.read(core.config.stack_json)
    assert content is not None
    assert content["pid"] == os.getpid()
    assert {p["name"]: p["pid"] for p in content["processes"]} == pids(core)
    assert all(p["state"] == "ready" for p in content["processes"])
    assert all(Path(p["log"]).read_text().endswith("serving\n") for p in content["processes"])


def test_stop_ends_every_process_and_what_they_started(tmp_path: Path) -> None:
    core = tiny_core(tmp_path)
    core.start()
    started = pids(core)
    assert all(len(group_of(pid)) == 2 for pid in started.values())
    core.stop()  # engine-1 ignores SIGTERM
    wait_until(lambda: not any(group_of(pid) for pid in started.values()))
    assert not core.config.stack_json.exists()


def test_a_part_that_was_killed_comes_back_on_its_address(core: StackCore) -> None:
    before = pids(core)["store"]
    core.kill("store")
    wait_until(lambda: not group_of(before))  # a killed process takes a moment to die
    assert core.watch() == []  # a kill on purpose is no news
    core.start_one("store")
    assert pids(core)["store"] != before
    assert core.processes["store"].plan.ready()


def test_a_part_that_dies_by_itself_is_reported_once_with_its_log(core: StackCore) -> None:
    os.kill(pids(core)["store"], signal.SIGKILL)
    wait_until(lambda: core.watch() or core.events)
    (report,) = core.events
    assert report.startswith("store was ended by SIGKILL. The last lines of ")
    assert report.endswith("serving")
    assert core.watch() == []
    assert core.processes["store"].state is State.DIED


def test_a_paused_part_keeps_its_connections_and_goes_on_later(core: StackCore) -> None:
    core.pause("store")
    pid = pids(core)["store"]
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    core.resume("store")
    wait_until(lambda: psutil.Process(pid).status() != psutil.STATUS_STOPPED)


def test_a_spare_is_started_on_request_until_none_is_left(core: StackCore) -> None:
    name = core.next_spare("engine")
    core.start_one(name)
    assert core.processes["engine-2"].state is State.READY
    with pytest.raises(DevstackError, match="No spare engine is left"):
        core.next_spare("engine")


def test_a_part_that_does_not_start_is_told_with_its_log_and_the_rest_is_ended(
    tmp_path: Path,
) -> None:
    core = tiny_core(tmp_path, broken=True)
    with pytest.raises(StartError) as caught:
        core.start()
    assert "last ended with exit code 7" in str(caught.value)
    assert "the reason" in str(caught.value)
    assert pids(core) == {}
    assert not core.config.stack_json.exists()


def test_a_taken_port_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        core = tiny_core(tmp_path, port=port)
        with pytest.raises(PortInUseError, match=f"Port {port} is in use by .*pid {os.getpid()}"):
            core.start()
    assert pids(core) == {}


def test_two_stacks_do_not_share_a_folder(core: StackCore) -> None:
    second = tiny_core(core.config.stack_json.parent)
    with pytest.raises(DevstackError, match=f"running here already .pid {os.getpid()}"):
        second.start()
    assert core.config.stack_json.exists()


@contextlib.contextmanager
def running_as_a_program(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    with subprocess.Popen([*TINY, folder], stdout=subprocess.PIPE, text=True, cwd=TESTS) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("Ready after"):
                    break
            content = stackfile.read(folder / "stack.json")
            assert content is not None
            yield process, [part["pid"] for part in content["processes"]]
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_process_of_the_stack(tmp_path: Path, number: signal.Signals) -> None:
    with running_as_a_program(tmp_path) as (process, started):
        assert len(started) == 3
        process.send_signal(number)
        output, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "Stopping" in output
        wait_until(lambda: not any(group_of(pid) for pid in started))
    assert not (tmp_path / "stack.json").exists()


def test_killing_the_devstack_leaves_no_process(tmp_path: Path) -> None:
    with running_as_a_program(tmp_path) as (process, started):
        process.kill()
        process.wait(5)
        # engine-1 and its child ignore SIGTERM: the guard kills them when their grace is over.
        wait_until(lambda: not any(group_of(pid) for pid in started))
    core = tiny_core(tmp_path)  # and what it left behind does not hinder the next one
    core.start()
    core.stop()
