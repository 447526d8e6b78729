"""The devstack with the real parts: what `make run` promises."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from parley_devstack import stackfile
from parley_devstack.ports import free_port
from parley_devstack.process import State
from parley_devstack.stack import Stack
from support.stack import SIM, MakeStack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@contextmanager
def make_run(home: Path, port: int) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Runs what `make run ENGINE=sim` runs; yields what it printed until it was ready."""
    stores = dict.fromkeys(("MONGODB_URI", "REDIS_URL"), "")
    settings = {"ENGINE": "sim", "PORT": str(port), "PARLEY_HOME": str(home)}
    jars = home / "java"
    if not jars.exists():
        from parley_devstack.paths import checkout

        home.mkdir(parents=True)
        jars.symlink_to(checkout().jars)
    with subprocess.Popen(
        [sys.executable, "-m", "parley_devstack", "run"],
        env={**os.environ, **SIM, **stores, **settings},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            printed = ""
            for line in process.stdout:
                printed += line
                if line.startswith("Ctrl-C ends everything"):
                    break
            assert "Ready after" in printed, printed
            yield printed, process
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


def curl_lines(printed: str) -> list[str]:
    lines = printed.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip().startswith("curl ")]


def output_of(command: str) -> str:
    return subprocess.run(
        command, shell=True, capture_output=True, text=True, timeout=30, check=True
    ).stdout


def test_make_run_prints_curl_lines_that_work_and_finds_its_data_again(tmp_path: Path) -> None:
    home, port = tmp_path / "home", free_port()
    with make_run(home, port) as (printed, _):
        streamed, listed = curl_lines(printed)
        answer = output_of(streamed)
        for event in ("run", "delta", "done"):
            assert f"event: {event}\n" in answer
        (chat,) = httpx.get(f"http://127.0.0.1:{port}/chats").json()["chats"]
        content = stackfile.read(home / "stack.json")
        assert content is not None
        pids = [part["pid"] for part in content["processes"]]
        assert {part["kind"] for part in content["processes"]} == {
            *("valkey", "mongodb", "inference", "cache", "session", "gateway")
        }
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []

    with make_run(home, port) as (printed, _):
        messages = httpx.get(f"http://127.0.0.1:{port}/chat/{chat['chatID']}").json()["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant"]
        assert chat["chatID"] in output_of(listed)


async def test_parts_can_be_hurt_and_healed_while_the_stack_runs(make_stack: MakeStack) -> None:
    stack: Stack = await make_stack(sessions=1, spare={"session": 1})
    await stack.add("session")
    await stack.kill("session-1")
    async with httpx.AsyncClient(base_url=stack.url, timeout=20) as client:
        answer = await client.post("/chat", json={"message": "Who is there?"})
        assert answer.status_code == 201, answer.text
        await stack.start_one("session-1")
        await stack.restart("gateway-1")
        listed = await client.get("/chats")
        assert [chat["chatID"] for chat in listed.json()["chats"]] == [answer.json()["chatID"]]
    assert await stack.died() == []
    assert {stack.state(name) for name in stack.names} == {State.READY}
