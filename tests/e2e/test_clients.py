"""The example clients and the lines of docs/clients.md, as a user runs them.

Between the client and the gateways stands a proxy that breaks its connections.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from e2e import flows
from parley_devstack.stack import Stack
from support import example_clients
from support.poll import until
from support.stack import LendMongoDB, running, sim_config
from support.tcp_proxy import TcpProxy

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "clients.md"
# An answer of about eight seconds, with words of many alphabets.
QUESTION = "[[sim:length tokens=400]] [[sim:slow itl=0.02]] Tell me of the sea."
# Bytes of text between two cuts, and bytes of the stream that still pass before each: a cut
# falls in an event's name, its id, its text, its end.
STEP = 150
CUTS = (1, 37, 64, 211)


class Asking:
    """An example client at work; `out` and `err` are what it has said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.out, self.err = bytearray(), bytearray()
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            asyncio.create_task(_collect(process.stdout, self.out)),
            asyncio.create_task(_collect(process.stderr, self.err)),
        ]

    async def more(self, size: int) -> None:
        """Wait until so many more bytes of the answer have come, and some are yet to come."""
        wanted = len(self.out) + size
        await until(
            lambda: len(self.out) >= wanted or self.process.returncode is not None,
            timeout=20,
            what="more of the answer",
        )
        assert self.process.returncode is None, self.err.decode()

    async def ended(self) -> int:
        """Its exit status."""
        async with asyncio.timeout(flows.ANSWER_SECONDS):
            await asyncio.gather(*self._readers)
            return await self.process.wait()

    async def stop(self) -> None:
        """End it, if it has not."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await asyncio.gather(*self._readers)
        await self.process.wait()


async def _collect(reader: asyncio.StreamReader, into: bytearray) -> None:
    while data := await reader.read(4096):
        into += data


@asynccontextmanager
async def asking(language: str, *arguments: str) -> AsyncIterator[Asking]:
    process = await asyncio.create_subprocess_exec(
        *example_clients.command(language),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    client = Asking(process)
    try:
        yield client
    finally:
        await client.stop()


@pytest.fixture(scope="module")
def two_gateways(
    tmp_path_factory: pytest.TempPathFactory, lend_mongodb: LendMongoDB
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("clients")
    with lend_mongodb() as lent:
        # No cache: the same question is answered anew for each client.
        yield from running(Stack(sim_config(folder, gateways=2, caches=0, **lent)))


@pytest.fixture
async def stack(two_gateways: Stack) -> AsyncIterator[Stack]:
    """The module's stack, healed after each test."""
    yield two_gateways
    for name in two_gateways.names_of("gateway"):
        if two_gateways.pid(name) is None:
            await two_gateways.start_one(name)


async def _chats(url: str) -> set[str]:
    async with flows.client(url, user="anonymous") as http:
        listed = (await http.get("/chats", params={"limit": 100})).json()["chats"]
        return {chat["chatID"] for chat in listed}


@pytest.mark.parametrize("language", ["python", "javascript"])
async def test_an_answer_comes_whole_and_once_through_breaks_and_a_killed_gateway(
    stack: Stack, language: str
) -> None:
    first, second = stack.names_of("gateway")
    before = await _chats(stack.url)
    async with TcpProxy(stack.plan(first).http) as proxy:
        proxy.cut()
        async with asking(language, f"http://{proxy.address}", QUESTION) as client:
            await until(lambda: proxy.counts.connections >= 1, what="a try that is turned away")
            proxy.heal()
            for bytes_left in CUTS:
                await client.more(STEP)
                resets = proxy.counts.resets
                proxy.reset_after(bytes_left)
                await until(lambda n=resets: proxy.counts.resets > n, what="a broken stream")
            await client.more(STEP)
            at_the_kill = len(client.out)
            await stack.kill(first)
            proxy.target = stack.plan(second).http
            await client.more(STEP)
            status = await client.ended()

    said = client.err.decode()
    assert status == 0, said
    assert said.count("trying again") >= len(CUTS) + 2, said
    assert at_the_kill < len(client.out)
    run, chat = re.findall(r"run (\S+) in chat (\S+)", said)[0]
    assert await _chats(stack.urls[1]) - before == {chat}
    async with flows.client(stack.urls[1], user="anonymous") as http:
        stored = (await http.get(f"/chat/{chat}")).json()["messages"]
        assert [message["role"] for message in stored] == ["user", "assistant"]
        assert stored[1]["runID"] == run
        assert stored[1]["content"].encode() == bytes(client.out)
        assert not bytes(client.out).isascii()


@pytest.mark.parametrize("language", ["python", "javascript"])
async def test_a_refusal_is_a_sentence_and_a_status(stack: Stack, language: str) -> None:
    async with asking(language, stack.url, " ") as client:
        assert await client.ended() == 1
    assert client.out == b""
    assert client.err.decode().startswith("invalid_request: ")
    assert len(client.err.decode().splitlines()) == 1


async def test_the_lines_of_the_page_work_in_their_order(stack: Stack, tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 6
    marker = "-- next --"
    script = f"\necho '{marker}'\n".join(blocks).replace("http://127.0.0.1:8080", stack.url)
    # Long enough to be met while it is made.
    slow = "[[sim:length tokens=200]] [[sim:slow itl=0.02]] Tell me a long story."
    script = script.replace("Tell me a long story.", slow)
    assert slow in script
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    tools = (Path(sys.executable).parent, Path(example_clients.node()).parent)
    path = os.pathsep.join([*map(str, tools), os.environ["PATH"]])
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-eu",
        "-c",
        script,
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    begun, rest, replayed, cancelled, python, javascript = out.decode().split(marker)

    head, _, body = replayed.strip().replace("\r\n", "\n").partition("\n\n")
    assert head.startswith("HTTP/1.1 201")
    assert "idempotent-replayed: true" in head.lower()
    answer = json.loads(body)["message"]["content"]
    assert _joined(begun) + _joined(rest) == answer
    assert _joined(begun)
    assert "event: done" not in begun
    assert "event: done" in rest

    assert cancelled.split("\n")[1] == "202"
    assert json.loads(cancelled.split("\n")[2])["state"] == "cancelled"
    assert python.strip()
    assert javascript.strip()


def _joined(said: str) -> str:
    deltas = re.findall(r"^event: delta\nid: \d+\ndata: (.*)$", said, re.MULTILINE)
    return "".join(json.loads(data)["text"] for data in deltas)
