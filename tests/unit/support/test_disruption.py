"""A strike on a cluster, and clients that give up while it waits."""

import json
import threading

import pytest

from support.cluster import Cluster, Stopped
from support.crowd import GaveUp
from support.disruption import under_load
from support.ledger import Ledger
from support.scripted_gateway import Asked, Reply, problem, scripted

SSE = {"content-type": "text/event-stream"}


def _event(name: str, data: dict[str, str], number: int = 0) -> bytes:
    return f"id: {number}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


def begun(asked: Asked) -> Reply:
    """Say that a message is taken, begin its answer, and break."""
    user = asked.headers["x-user-id"]
    body = _event("run", {"chatID": f"chat of {user}", "runID": f"run of {user}"})
    body += b"".join(_event("delta", {"text": "a"}, end) for end in (1, 2, 3))
    return Reply(200, body, SSE)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """One that is asked for nothing."""
    monkeypatch.setenv("KUBECONFIG", "none")
    monkeypatch.setenv("HELM", "none")
    return Cluster("none")


async def test_it_ends_when_a_client_gives_up_and_is_undone(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    struck, undone = threading.Event(), threading.Event()

    def script(asked: Asked) -> Reply:
        if asked.method == "POST":
            return begun(asked)
        return problem(500, "internal") if struck.is_set() else problem(503, "overloaded")

    def strike() -> None:
        struck.set()
        try:
            cluster.until(lambda: False, "what never happens")
        except Stopped:
            undone.set()
            raise

    async with scripted(script) as url:
        monkeypatch.setenv("PARLEY_CLUSTER_URL", url)
        with Ledger() as ledger, pytest.raises(GaveUp, match="500 internal") as caught:
            await under_load(cluster, ledger, strike, streams=2, at_least=2)
    assert undone.is_set()
    assert not cluster.stop.is_set()
    [known] = caught.value.__notes__
    assert "2 messages, 2 of them acknowledged" in known


async def test_a_strike_that_fails_says_so_with_what_clients_saw(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(asked: Asked) -> Reply:
        return begun(asked) if asked.method == "POST" else problem(503, "overloaded")

    def strike() -> None:
        raise AssertionError("the node refused")

    async with scripted(script) as url:
        monkeypatch.setenv("PARLEY_CLUSTER_URL", url)
        with Ledger() as ledger, pytest.raises(AssertionError, match="the node") as caught:
            await under_load(cluster, ledger, strike, streams=1, at_least=1)
    [known] = caught.value.__notes__
    assert "1 messages, 1 of them acknowledged; ends of what was read: {'none': " in known
