"""TLS between services: who is refused, and how certificates change without anybody noticing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from prometheus_client import REGISTRY

from parley_kit.errors import ServiceError, StartupError
from parley_kit.replica import Replica
from parley_kit.replicas import ReplicaSet
from parley_kit.rpc.client import call_unary, open_channel, open_stream
from parley_kit.rpc.security import Security
from parley_kit.tls import TlsFiles
from support.certificates import LONG_AGO, Certificates
from support.echo import EchoStub, echo_server, text
from support.poll import until
from support.resolvers import ListedResolver

pytestmark = pytest.mark.integration
NAME = "echo.parley.svc"


class Named(ListedResolver):
    """Addresses that go by one name."""

    def server_name(self, address: str) -> str:
        return NAME


def named_replicas(port: int, security: Security) -> ReplicaSet[EchoStub]:
    """The one echo server of that port, not started."""
    return ReplicaSet(
        Named(f"127.0.0.1:{port}"),
        name="echo",
        attach=lambda _address, channel: EchoStub(channel),
        security=security,
    )


@pytest.fixture(name="certificates")
def _certificates(tmp_path: Path) -> Certificates:
    made = Certificates(tmp_path / "server")
    made.issue(NAME)
    return made


def files(of: Certificates, **given: Any) -> TlsFiles:
    kinds = {"mutual": True, "serves": True, "calls": True} | given
    shows = kinds["serves"] or (kinds["mutual"] and kinds["calls"])
    return TlsFiles(
        of.ca_file,
        of.certificate_file if shows else None,
        of.key_file if shows else None,
        **kinds,
    )


@contextlib.asynccontextmanager
async def started(of: Certificates, **given: Any) -> AsyncIterator[Security]:
    security = Security(files(of, **given), 0.05)
    await security.start()
    try:
        yield security
    finally:
        await security.stop()


async def say(port: int, security: Security | None, name: str = NAME) -> str:
    async with open_channel(f"127.0.0.1:{port}", security=security, server_name=name) as channel:
        answer = await call_unary(EchoStub(channel).Say, text("hello"), timeout=5)
    return answer.value


async def test_those_with_certificates_of_the_same_authority_talk(
    certificates: Certificates,
) -> None:
    async with started(certificates) as security, echo_server(security=security) as server:
        assert await say(server.port, security) == "hello"


async def test_a_caller_without_a_certificate_of_the_authority_is_refused(
    certificates: Certificates, tmp_path: Path
) -> None:
    stranger = Certificates(tmp_path / "stranger")
    stranger.issue(trust=(certificates.ca,))
    none = {"mutual": False, "serves": False}
    async with (
        started(certificates) as security,
        echo_server(security=security) as server,
        started(certificates, **none) as bare,
    ):
        for caller in (None, bare):
            with pytest.raises(ServiceError) as refused:
                await say(server.port, caller)
            assert refused.value.code == "unavailable"
        # Its own files would not do; so its certificate is told apart from what it trusts.
        unchecked = Security(files(stranger), 1)
        with pytest.raises(StartupError, match="would be refused by those who trust"):
            await unchecked.start()
        assert await say(server.port, security) == "hello"


async def test_a_server_of_another_name_or_authority_is_refused(
    certificates: Certificates, tmp_path: Path
) -> None:
    async with (
        started(certificates) as security,
        echo_server(security=security) as server,
        started(Certificates(tmp_path / "other"), mutual=False) as other,
    ):
        with pytest.raises(ServiceError, match="Hostname Verification"):
            await say(server.port, security, "cache.parley.svc")
        with pytest.raises(ServiceError, match="CERTIFICATE_VERIFY_FAILED"):
            await say(server.port, other)


async def test_without_mutual_callers_need_no_certificate(certificates: Certificates) -> None:
    async with (
        started(certificates, mutual=False) as security,
        echo_server(security=security) as server,
        started(certificates, mutual=False, serves=False) as caller,
    ):
        assert await say(server.port, caller) == "hello"


async def test_certificates_change_under_a_stream_that_goes_on(certificates: Certificates) -> None:
    """Both ends change to another authority, as an operator does: trust both, then issue anew."""
    go_on = asyncio.Event()

    async def count(request: Any, context: Any) -> Any:
        yield text("first")
        await go_on.wait()
        yield text("last")

    async with (
        started(certificates) as security,
        echo_server(count=count, security=security) as server,
    ):
        replicas = named_replicas(server.port, security)
        await replicas.start()
        try:
            await replicas.wait_ready(5)
            first = replicas.pick()
            stream = open_stream(first.attachment.Count, text(""), timeout=30)
            first.track(stream)
            assert (await anext(stream)).value == "first"
            old, new = certificates.ca, trustme.CA()
            certificates.issue(NAME, trust=(old, new))
            await until(lambda: security.generation == 2)
            certificates.ca = new
            certificates.issue(NAME, trust=(old, new))
            await until(lambda: security.generation == 3)
            certificates.issue(NAME)
            await until(lambda: security.generation == 4)

            def another() -> Replica[EchoStub] | None:
                picked = replicas.pick()
                return picked if picked is not first and picked.ready else None

            second = await until(another)
            # In use, it is not closed under the call, should it be replaced once more.
            with second.use():
                answer = await call_unary(second.attachment.Say, text("new"), timeout=5)
            assert answer.value == "new"
            go_on.set()
            assert [message.value async for message in stream] == ["last"]
        finally:
            go_on.set()
            await replicas.stop()


async def test_a_call_is_never_refused_while_certificates_change(
    certificates: Certificates,
) -> None:
    async with started(certificates) as security, echo_server(security=security) as server:
        replicas = named_replicas(server.port, security)
        await replicas.start()
        try:
            await replicas.wait_ready(5)
            seen = {replicas.pick()}
            for generation in range(2, 5):
                certificates.issue(NAME)
                while security.generation < generation or replicas.pick() in seen:
                    replica = replicas.pick()
                    with replica.use():
                        await call_unary(replica.attachment.Say, text("x"), timeout=5)
                seen.add(replicas.pick())
            assert len(seen) == 4
        finally:
            await replicas.stop()


async def test_bad_files_leave_the_last_good_certificate_in_use(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    def refused() -> float:
        return REGISTRY.get_sample_value("parley_tls_reloads_total", {"outcome": "refused"}) or 0.0

    before = refused()
    async with started(certificates) as security, echo_server(security=security) as server:
        with caplog.at_level(logging.ERROR):
            certificates.issue(NAME, expires=LONG_AGO.replace(year=2002))
            await until(lambda: refused() == before + 1)
        assert "certificate has expired" in caplog.text
        assert security.generation == 1
        assert await say(server.port, security) == "hello"
        certificates.issue(NAME)
        await until(lambda: security.generation == 2)


async def test_the_reason_is_told_why_a_replica_cannot_be_reached(
    certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        started(certificates) as security,
        echo_server(security=security) as server,
        started(Certificates(tmp_path / "other")) as other,
    ):
        replicas: ReplicaSet[None] = ReplicaSet(
            Named(f"127.0.0.1:{server.port}"), name="echo", security=other
        )
        await replicas.start()
        try:
            with caplog.at_level(logging.WARNING):
                await until(lambda: "cannot be reached" in caplog.text)
            told = [vars(r) for r in caplog.records if "cannot be reached" in r.message]
            assert "CERTIFICATE_VERIFY_FAILED" in told[0]["reason"]
        finally:
            await replicas.stop()


def _no_ca(of: Certificates) -> None:
    of.ca_file.unlink()


def _no_pem(of: Certificates) -> None:
    of.ca_file.write_text("no certificate")


def _another_key(of: Certificates) -> None:
    key = trustme.CA().issue_cert("x").private_key_pem
    of.key_file.write_bytes(key.bytes())


def _expired(of: Certificates) -> None:
    of.issue(NAME, expires=LONG_AGO.replace(year=2002))


def _of_another(of: Certificates) -> None:
    of.issue(NAME, trust=(trustme.CA(),))


def _no_key(of: Certificates) -> None:
    of.key_file.write_text("")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_no_ca, "ca.crt cannot be read: No such file"),
        (_no_pem, "ca.crt holds no certificate in PEM"),
        (_another_key, "tls.key is not the key of"),
        (_no_key, "are no certificate and unencrypted key in PEM"),
        (_expired, "certificate has expired"),
        (_of_another, "unable to get local issuer certificate"),
    ],
)
@pytest.mark.parametrize("mutual_caller", [False, True])
async def test_bad_certificates_end_the_start_with_a_sentence(
    certificates: Certificates, spoil: Any, said: str, mutual_caller: bool
) -> None:
    spoil(certificates)
    security = Security(files(certificates, serves=not mutual_caller), 1)
    with pytest.raises(StartupError, match=said):
        await security.start()
