"""What the run log costs: streamed tokens a second with it and without it, in one run.

    PYTHONPATH=tests python -m support.durability [--streams 64] [--rounds 5] [--tokens 400]

Two session replicas, alike but for the log (Valkey, or one in memory that nothing
outlives), stand on the same engine and the same MongoDB, and answer in turns. The engine
is the simulator, as fast as it can; the caller is gRPC straight to session, so that no
gateway dilutes the cost. The log has paid for itself if the ratio is 0.85 or more.

    python -m support.durability serve redis|memory     one of the two replicas
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc.aio
import httpx
import psutil
from parley.session.v1 import session_pb2 as pb
from parley.session.v1 import session_pb2_grpc as pb_grpc

from parley_devstack.stack import Stack
from parley_kit.ids import uuid7
from support.poll import until
from support.ports import free_ports
from support.stack import sim_config

TARGET = 0.85
LOGS = ("redis", "memory")


@dataclass(frozen=True, slots=True)
class Round:
    """One replica's turn."""

    tokens: int
    seconds: float
    cpu_seconds: float  # of the replica

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds

    @property
    def cost(self) -> float:
        """Microseconds of the replica's CPU for a token."""
        return 1e6 * self.cpu_seconds / self.tokens


@dataclass(frozen=True, slots=True)
class Server:
    """A replica."""

    address: str
    process: psutil.Process


async def serve(log: str, stop: asyncio.Event) -> None:
    """Be a session replica until told to stop, with the one log or the other."""
    from parley_kit.config import load_settings
    from parley_session.bootstrap import connected, serving
    from parley_session.config import SessionSettings
    from parley_session.runs.memory_log import MemoryRunLog

    settings = load_settings(SessionSettings)
    async with connected(settings) as outside:
        chosen = replace(outside, log=MemoryRunLog()) if log == "memory" else outside
        async with serving(settings, chosen):
            await stop.wait()


@asynccontextmanager
async def replica(stack: Stack, log: str) -> AsyncIterator[Server]:
    """Start a replica beside those of the stack."""
    port, admin = free_ports(2)
    env = dict(stack.plan("session-1").env)
    env |= {"PARLEY_SESSION_PORT": str(port), "PARLEY_SESSION_ADMIN_PORT": str(admin)}
    env["PYTHONPATH"] = str(Path(__file__).parents[1])
    output = (stack.config.logs_dir / f"durability-{log}.log").open("ab")
    command = [sys.executable, "-m", "support.durability", "serve", log]
    process = subprocess.Popen(  # noqa: ASYNC220 - once, before anything is measured
        command, env={**os.environ, **env}, stdout=output, stderr=output
    )
    try:
        async with httpx.AsyncClient(trust_env=False) as http:

            async def ready() -> bool:
                try:
                    return (await http.get(f"http://127.0.0.1:{admin}/readyz")).is_success
                except httpx.TransportError:
                    return False

            await until(ready, timeout=30, what=f"the replica with the {log} log")
        yield Server(f"127.0.0.1:{port}", psutil.Process(process.pid))
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 20)
        output.close()


async def measure(server: Server, streams: int, tokens: int) -> Round:
    """Have so many answers streamed at once, each of so many tokens."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = pb_grpc.SessionServiceStub(channel)
        before, began = server.process.cpu_times(), time.perf_counter()
        counts = await asyncio.gather(*(_answer(stub, tokens) for _ in range(streams)))
        seconds, after = time.perf_counter() - began, server.process.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    return Round(sum(counts), seconds, cpu)


async def _answer(stub: pb_grpc.SessionServiceAsyncStub, tokens: int) -> int:
    request = pb.CompleteRequest(
        chat_id=uuid7(),
        run_id=uuid7(),
        new_chat=pb.NewChat(),
        message=f"{uuid7()} [[sim:length tokens={tokens}]]",
        options=pb.CompletionOptions(max_tokens=tokens + 1, timeout_seconds=300),
    )
    metadata = (("parley-tenant", "default"), ("parley-user-bin", b"bench"))
    async for response in stub.Complete(request, timeout=300, metadata=metadata):
        kind = response.event.WhichOneof("event")
        if kind == "done":
            return int(response.event.done.usage.completion_tokens)
        assert kind != "failed", response.event.failed.problem
    raise AssertionError("a stream ended early")


def report(rounds: dict[str, list[Round]]) -> str:
    """The result in words and numbers."""
    lines = ["log      tokens/s (median; all)            session CPU µs/token (median)"]
    for log, made in rounds.items():
        rates = ", ".join(f"{each.rate:.0f}" for each in made)
        rate = statistics.median(each.rate for each in made)
        cost = statistics.median(each.cost for each in made)
        lines.append(f"{log:8} {rate:8.0f} ({rates}) {cost:10.1f}")
    value = ratio(rounds)
    verdict = "met" if value >= TARGET else "missed"
    lines.append(f"with the log / without: {value:.3f} (target {TARGET}: {verdict})")
    costs = [statistics.median(each.cost for each in rounds[log]) for log in LOGS]
    lines.append(
        f"by the session's CPU alone, which others disturb less: {costs[1] / costs[0]:.3f}"
    )
    return "\n".join(lines)


def ratio(rounds: dict[str, list[Round]]) -> float:
    """The median over pairs of neighbouring rounds: both saw the same machine."""
    pairs = zip(rounds["redis"], rounds["memory"], strict=True)
    return statistics.median(with_log.rate / without.rate for with_log, without in pairs)


async def bench(streams: int, rounds: int, tokens: int) -> dict[str, list[Round]]:
    """Start everything, and let the replicas answer in turns."""
    made: dict[str, list[Round]] = {log: [] for log in LOGS}
    engine = {"PARLEY_INFERENCE_SIM_TTFT": "0", "PARLEY_INFERENCE_SIM_ITL": "0"}
    with tempfile.TemporaryDirectory(prefix="parley-durability-") as folder:
        config = sim_config(Path(folder), env={"inference": engine}, persistent=False)
        async with (
            Stack(config) as stack,
            replica(stack, "redis") as redis,
            replica(stack, "memory") as memory,
        ):
            servers = dict(zip(LOGS, (redis, memory), strict=True))
            for server in servers.values():
                await measure(server, streams, 20)
            for number in range(rounds):
                # Who goes first changes, so that what grows with time favours neither.
                for log in LOGS if number % 2 == 0 else LOGS[::-1]:
                    made[log].append(await measure(servers[log], streams, tokens))
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench; 0 if the target is met."""
    parser = argparse.ArgumentParser(prog="support.durability")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=400)
    commands = parser.add_subparsers(dest="command")
    serving = commands.add_parser("serve", help="be one of the two replicas")
    serving.add_argument("log", choices=LOGS)
    options = parser.parse_args(argv)
    if options.command == "serve":
        from parley_kit.logs import setup_logging
        from parley_kit.process import run

        setup_logging("session")

        return run(lambda stop: serve(options.log, stop))
    rounds = asyncio.run(bench(options.streams, options.rounds, options.tokens))
    sys.stdout.write(report(rounds) + "\n")
    return 0 if ratio(rounds) >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
