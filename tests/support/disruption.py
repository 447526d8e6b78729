"""A crowd on a cluster in mid-answer, what befalls it, and what became of the answers."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from support.cluster import LOOK, READY, Cluster, Stopped
from support.crowd import Crowd, Patience
from support.evidence import collect, queued, unended
from support.fault_table import Row, row_of
from support.ledger import Ledger, Reading
from support.poll import until
from support.verdict import Evidence, Kind, Verdict, judge

STREAMS, AT_LEAST = 24, 20
LONG = "[[sim:length tokens=160]]"
TURN_SECONDS = 150
LOG_TTL_SECONDS = 900.0


@contextmanager
def forwarded(cluster: Cluster, target: str, port: int) -> Iterator[int]:
    """A port of this machine that leads to one of the cluster; the port."""
    command = ["kubectl", "-n", cluster.namespace, "port-forward", target, f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
        try:
            assert forward.stdout is not None
            said = forward.stdout.readline()
            found = re.search(r"127\.0\.0\.1:(\d+)", said)
            assert found, f"{' '.join(command)}: {said}"
            yield int(found[1])
        finally:
            forward.terminate()
            forward.wait(timeout=10)


@dataclass(frozen=True, slots=True)
class Struck:
    """What was seen of the answers that were in progress."""

    # When the strike began, and what was in progress until it was over.
    began: float
    answers: list[Reading]
    evidence: Evidence
    verdict: Verdict


async def disrupt(cluster: Cluster, fault: str, victim: str, strike: Callable[[], object]) -> Row:
    """Have 24 clients stream answers, one after the other, until a strike is over; judge it all.

    Raises AssertionError for an answer that is lost, doubled or changed.
    """
    with Ledger() as ledger:
        seen = await under_load(cluster, ledger, strike)
    row = row_of(
        fault,
        victim,
        ledger=ledger,
        evidence=seen.evidence,
        verdict=seen.verdict,
        struck=seen.answers,
        struck_at=seen.began,
    )
    assert seen.verdict.count(*Kind) == 0, f"{row}\n{seen.verdict}"
    assert row.recovered == row.disturbed, row
    return row


async def under_load(
    cluster: Cluster,
    ledger: Ledger,
    strike: Callable[[], object],
    *,
    streams: int = STREAMS,
    at_least: int = AT_LEAST,
    message: str = LONG,
) -> Struck:
    """Have clients stream until a strike is over, which begins with `at_least` in mid-answer.

    The strike waits by `Cluster.until`, which ends when a client has given up: Raises GaveUp.
    """
    url = cluster.url()
    patience = Patience(silence=6.0, turn=TURN_SECONDS)
    options = {"maxTokens": 200, "timeoutSeconds": TURN_SECONDS}
    crowd = Crowd([url], ledger, size=streams, patience=patience, options=options)
    over = False

    async def talk() -> None:
        while not over:
            await crowd.say(message)

    async with crowd:
        talking = asyncio.create_task(talk())
        try:
            await _while(talking, crowd.in_mid_answer(at_least))
            began = ledger.now()
            await _while(talking, _in_a_thread(cluster, strike))
            ended, over = ledger.now(), True
            await talking
        except AssertionError as error:
            error.add_note(_known(ledger))
            raise
        finally:
            talking.cancel()
            await asyncio.wait({talking})
        answers = _in_progress(ledger, {client.name for client in crowd.clients}, began, ended)
        # Nothing is made twice: the same requests are the same answers.
        await crowd.repeat()
    evidence = await evidence_of(cluster, url, ledger)
    verdict = judge(ledger, evidence, log_ttl_seconds=LOG_TTL_SECONDS)
    return Struck(began, answers, evidence, verdict)


async def _while(talking: asyncio.Task[None], waiting: Coroutine[Any, Any, object]) -> None:
    """Wait for something while clients talk. It is cancelled when they fail, which is raised."""
    waited = asyncio.create_task(waiting)
    try:
        await asyncio.wait({talking, waited}, return_when=asyncio.FIRST_COMPLETED)
        if talking.done():
            talking.result()
        await waited
    finally:
        waited.cancel()
        await asyncio.wait({waited})


async def _in_a_thread(cluster: Cluster, strike: Callable[[], object]) -> None:
    """Run a strike. Cancelled, it is stopped at its next look, so that it undoes what it did."""
    running = asyncio.create_task(asyncio.to_thread(strike))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        cluster.stop.set()
        with suppress(Stopped, AssertionError):
            await running
        raise
    finally:
        cluster.stop.clear()


def _known(ledger: Ledger) -> str:
    """What clients had seen when something went wrong."""
    readings = list(ledger.readings.values())
    ends = Counter(f"{reading.ending} {reading.code}".rstrip() or "none" for reading in readings)
    refusals = Counter(why for ask in ledger.asks for why in ask.refusals)
    return (
        f"{len(ledger.asks)} messages, {len(ledger.acknowledged_asks())} of them acknowledged; "
        f"ends of what was read: {dict(ends)}; streams broken: "
        f"{sum(len(reading.breaks) for reading in readings)}; "
        f"refused most often by: {dict(refusals.most_common(5))}"
    )


def _in_progress(ledger: Ledger, readers: set[str], began: float, ended: float) -> list[Reading]:
    """What was being read at some time between two others."""
    return [
        reading
        for reading in ledger.readings.values()
        if reading.reader in readers
        and reading.began_at <= ended
        and (reading.ended_at is None or reading.ended_at >= began)
    ]


async def evidence_of(cluster: Cluster, url: str, ledger: Ledger) -> Evidence:
    """Collect what a platform on a cluster has, once every run is at its end."""
    with (
        forwarded(cluster, "deployment/stores", 27017) as mongodb,
        forwarded(cluster, "deployment/stores", 6379) as redis,
    ):
        uri = f"mongodb://127.0.0.1:{mongodb}/?directConnection=true"
        redis_url = f"redis://127.0.0.1:{redis}/0"

        async def at_rest() -> bool:
            # A place that a dead replica kept in the queue ends by itself after a minute.
            left = [*await unended(uri), *await queued(redis_url)]
            assert not left, left
            return True

        what = "every run to end, and its place in the queue"
        await until(at_rest, timeout=READY, what=what, longest_pause=LOOK)
        return await collect(ledger, url=url, mongodb_uri=uri, redis_url=redis_url)
