"""The whole platform under mTLS: it answers, shuts strangers out, and takes up certificates."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from e2e import flows
from parley_devstack.stack import Stack
from support.certificates import LONG_AGO, Certificates
from support.poll import until
from support.stack import LendMongoDB, running, sim_config

pytestmark = pytest.mark.timeout(180)
KINDS = ("gateway", "session", "cache", "inference")
STREAMS = 4
# An answer of about four seconds.
MESSAGE = "[[sim:length tokens=200]] [[sim:slow itl=0.02]] Number {}"


def settings(kind: str, of: Certificates) -> dict[str, str]:
    prefix = f"PARLEY_{kind.upper()}_"
    return {prefix + name.upper(): str(value) for name, value in of.settings("mutual").items()}


@pytest.fixture(scope="module")
def certified(
    tmp_path_factory: pytest.TempPathFactory, lend_mongodb: LendMongoDB
) -> Iterator[tuple[Stack, dict[str, Certificates]]]:
    """A stack whose services have certificates of one authority, each its own."""
    folder, ca = tmp_path_factory.mktemp("tls"), trustme.CA()
    each = {kind: Certificates(folder / kind, ca) for kind in KINDS}
    env = {kind: settings(kind, each[kind]) for kind in KINDS}
    with lend_mongodb() as lent:
        for stack in running(Stack(sim_config(folder, env=env, **lent))):
            yield stack, each


async def asked(stack: Stack, message: str) -> dict[str, object]:
    async with flows.client(stack.url) as http:
        return await flows.ask(http, "/chat", message, options={"temperature": 0})


async def test_the_platform_answers_and_a_stranger_is_refused(
    certified: tuple[Stack, dict[str, Certificates]],
) -> None:
    stack, each = certified
    question = "Which sea is the deepest?"
    first = await asked(stack, question)

    async def hit() -> bool:
        return (await asked(stack, question))["cache"]["status"] == "exact"

    # Through session and cache, and to the engine before it.
    await until(hit, timeout=20, what="an answer from the cache")
    assert first["message"]["content"]
    ca = each["session"].ca_file.read_bytes()
    for kind in ("session", "cache", "inference"):
        address = stack.plan(f"{kind}-1").grpc
        for credentials in (None, grpc.ssl_channel_credentials(ca)):
            channel = (
                grpc.aio.secure_channel(address, credentials)
                if credentials
                else grpc.aio.insecure_channel(address)
            )
            async with channel:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await health_pb2_grpc.HealthStub(channel).Check(
                        health_pb2.HealthCheckRequest(), timeout=5
                    )
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_another_authority_is_taken_up_while_answers_are_streamed(
    certified: tuple[Stack, dict[str, Certificates]],
) -> None:
    stack, each = certified
    seen: list[list[flows.Event]] = [[] for _ in range(STREAMS)]

    async def read(number: int) -> None:
        body = {
            "message": MESSAGE.format(number),
            "stream": True,
            "options": {"cache": "bypass", "timeoutSeconds": 50},
        }
        async with (
            flows.client(stack.url) as http,
            http.stream("POST", "/chat", json=body) as response,
        ):
            async for event in flows.events(response):
                seen[number].append(event)

    async def taken_up(times: int) -> None:
        def all_have() -> bool:
            return all(
                stack.plan(f"{kind}-1").log.read_text().count("certificates reloaded") >= times
                for kind in KINDS
            )

        await until(all_have, timeout=20, what="certificates that are taken up")

    reading = [asyncio.create_task(read(number)) for number in range(STREAMS)]
    await until(lambda: all(len(events) > 10 for events in seen), 20, "answers in progress")
    old, new = each["session"].ca, trustme.CA()
    for one in each.values():
        one.issue(trust=(old, new))
    await taken_up(1)
    for one in each.values():
        one.ca = new
        one.issue(trust=(old, new))
    await taken_up(2)
    for one in each.values():
        one.issue()
    await taken_up(3)
    async with asyncio.timeout(60):
        await asyncio.gather(*reading)
    for events in seen:
        assert events[-1].name == "done", events[-1]
        done = events[-1].data
        assert flows.joined_text(events) == done["message"]["content"]
        assert done["usage"]["completionTokens"] == 200
    assert (await asked(stack, "And after that?"))["message"]["content"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_certificate_ends_the_start_with_a_sentence(kind: str, tmp_path: Path) -> None:
    expired = Certificates(tmp_path)
    expired.issue(expires=LONG_AGO.replace(year=2002))
    process = subprocess.run(
        [sys.executable, "-m", f"parley_{kind}"],
        env={
            **settings(kind, expired),
            "PARLEY_SESSION_MONGODB_URI": "mongodb://127.0.0.1:1",
            "PARLEY_SESSION_LOG_REDIS_URL": "redis://127.0.0.1:1",
            "PARLEY_SESSION_INFERENCE_TARGETS": "127.0.0.1:1",
            "PARLEY_CACHE_REDIS_URL": "redis://127.0.0.1:1",
            "PARLEY_INFERENCE_ENGINE": "sim",
            f"PARLEY_{kind.upper()}_PORT": "0",
            f"PARLEY_{kind.upper()}_ADMIN_PORT": "0",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 3
    last = process.stderr.splitlines()[-1]
    assert last.startswith("TLS: ")
    assert last.endswith("certificate has expired")
