"""The report as an operator gets it: the command, over a real store, beside real replicas."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import sys
from collections.abc import AsyncIterator
from datetime import date, timedelta

import pytest

from parley_kit.ids import uuid7
from parley_session.clock import Clock
from parley_session.domain.model import Principal
from parley_session.domain.usage import UsageRecord
from parley_session.jobs.usage_report import UsageReporter
from parley_session.report import COLUMNS, main
from parley_session.store.mongo.client import MongoOptions
from parley_session.store.mongo.store import MongoStore
from parley_session.usage import Usage
from support.servers import MongoDatabase

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
DAY = date(2026, 3, 1)
NEXT = DAY + timedelta(days=1)
USERS = [Principal("acme", "alice"), Principal("acme", 'bob, "the" second'), Principal("ü", "名")]
SUMS = COLUMNS[4:]


@pytest.fixture
async def store(mongodb_database: MongoDatabase) -> AsyncIterator[MongoStore]:
    """A store with some usage of two days."""
    made = MongoStore(MongoOptions(mongodb_database.uri, mongodb_database.name))
    await made.prepare()
    for user in USERS:
        assert user.user is not None
        for n in range(6):
            day, name = DAY + timedelta(days=n % 2), f"model {n % 3}"
            await made.insert_usage(
                UsageRecord(uuid7(), user.tenant, user.user, day, name, n % 2, 1, 7 * n, n, n % 2)
            )
    yield made
    await made.close()


@pytest.fixture
def settings(mongodb_database: MongoDatabase) -> dict[str, str]:
    """A replica's settings, of which the report needs the database."""
    return {
        "PARLEY_SESSION_MONGODB_URI": mongodb_database.uri,
        "PARLEY_SESSION_MONGODB_DATABASE": mongodb_database.name,
        "PARLEY_SESSION_LOG_REDIS_URL": "redis://127.0.0.1:1",
        "PARLEY_SESSION_INFERENCE_TARGETS": "127.0.0.1:1",
    }


async def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command prints, run in this process."""
    assert await asyncio.to_thread(main, arguments) == 0
    return capsys.readouterr().out


async def test_the_command_agrees_with_usage(store: MongoStore, settings: dict[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "parley_session.report", "--from", str(DAY), "--to", str(NEXT),
        env={k: v for k, v in os.environ.items() if not k.startswith("PARLEY_")}
        | settings | {"PYTHONIOENCODING": "utf-8"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    rows = list(csv.DictReader(io.StringIO(out.decode(), newline="")))
    assert tuple(rows[0]) == COLUMNS
    for user in USERS:
        days = await Usage(store).report(user, DAY, NEXT)
        assert len(days) == 2
        for day in days:
            whose = (str(day.day), user.tenant, user.user)
            own = [row for row in rows if (row["day"], row["tenant"], row["user"]) == whose]
            assert {name: sum(int(row[name]) for row in own) for name in SUMS} == {
                name: getattr(day, name) for name in SUMS
            }


async def test_json_lines_are_of_the_days_and_the_tenant_asked_for_with_what_came_since(
    store: MongoStore,
    settings: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    arguments = ("--from", str(DAY), "--tenant", "ü", "--format", "jsonl")
    before = [json.loads(line) for line in (await printed(capsys, *arguments)).splitlines()]
    assert {(line["day"], line["tenant"], line["user"]) for line in before} == {
        (str(DAY), "ü", "名")
    }
    await store.insert_usage(UsageRecord(uuid7(), "ü", "名", DAY, "model 0", 0, 1))
    after = [json.loads(line) for line in (await printed(capsys, *arguments)).splitlines()]
    assert sum(line["runs"] for line in after) == sum(line["runs"] for line in before) + 1


async def test_many_who_report_at_once_count_once(store: MongoStore) -> None:
    await asyncio.gather(*(UsageReporter(store, Clock()).report(NEXT) for _ in range(6)))
    rows = await store.list_report(DAY, NEXT, None, None, 100)
    assert sum(row.runs for row in rows) == 6 * len(USERS)
    assert await store.list_unreported(NEXT + timedelta(days=1), 10) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "yesterday"), "'yesterday' is no day"),
        (("--from", "2026-03-02", "--to", "2026-03-01"), "--to must be 0 to 365 days after"),
        (("--from", "2024-01-01", "--to", "2026-03-01"), "--to must be 0 to 365 days after"),
        (("--format", "xml"), "invalid choice"),
    ],
)
def test_wrong_arguments_are_told(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    assert said in capsys.readouterr().err


def test_a_store_that_is_away_is_told_in_a_sentence(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings["PARLEY_SESSION_MONGODB_URI"] = "mongodb://user:hunter2@127.0.0.1:1/"
    settings["PARLEY_SESSION_MONGODB_TIMEOUT_SECONDS"] = "1"
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert main(()) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("the store is away")
    assert "hunter2" not in said.err
