"""Print the usage report: `python -m parley_session.report --from 2026-11-01 --to 2026-11-30`.

Takes a replica's settings. What is not yet in the stored report of these days is put there
first, so that it agrees with `/usage` whether or not the periodic job has come by; a day
that is not over is as far as it has come. Rows go to stdout, what went wrong to stderr.

Exit codes: 0; 2, wrong settings or arguments; 3, the store is away.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, fields
from datetime import date, timedelta
from typing import Any, TextIO

from parley_kit.config import load_settings
from parley_session.clock import Clock, utc_now
from parley_session.config import SessionSettings
from parley_session.domain.usage import ReportRow
from parley_session.jobs.usage_report import UsageReporter
from parley_session.store.base import Store, StoreUnavailable
from parley_session.store.mongo.client import MongoOptions
from parley_session.store.mongo.store import MongoStore

EXIT_AWAY = 3
MAX_DAYS = 366
# Rows read at a time.
PAGE = 1000

COLUMNS = tuple(field.name for field in fields(ReportRow))


async def read_report(
    store: Store, first: date, last: date, tenant: str | None
) -> AsyncGenerator[ReportRow, None]:
    """Read the report's rows of some days, by day, tenant, user and model."""
    after: ReportRow | None = None
    while True:
        rows = await store.list_report(first, last, tenant, after, PAGE)
        for row in rows:
            yield row
        if len(rows) < PAGE:
            return
        after = rows[-1]


def write_csv(out: TextIO) -> Callable[[ReportRow], None]:
    """Write rows as CSV (RFC 4180), the column's names first."""
    writer = csv.writer(out)
    writer.writerow(COLUMNS)

    def write(row: ReportRow) -> None:
        writer.writerow(_values(row).values())

    return write


def write_json_lines(out: TextIO) -> Callable[[ReportRow], None]:
    """Write each row as a JSON object in a line."""

    def write(row: ReportRow) -> None:
        out.write(json.dumps(_values(row), ensure_ascii=False) + "\n")

    return write


def _values(row: ReportRow) -> dict[str, Any]:
    return asdict(row) | {"day": row.day.isoformat()}


FORMATS = {"csv": write_csv, "jsonl": write_json_lines}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report; the exit code."""
    arguments = _arguments(argv)
    settings = load_settings(SessionSettings)
    try:
        asyncio.run(_print(settings, arguments, sys.stdout))
    except StoreUnavailable as error:
        sys.stderr.write(f"the store is away: {error}\n")
        return EXIT_AWAY
    return 0


async def _print(settings: SessionSettings, arguments: argparse.Namespace, out: TextIO) -> None:
    store = MongoStore(
        MongoOptions(
            uri=settings.mongodb_uri.get_secret_value(),
            database=settings.mongodb_database,
            operation_seconds=settings.mongodb_timeout_seconds,
        )
    )
    try:
        await UsageReporter(store, Clock()).report(arguments.last)
        write = FORMATS[arguments.format](out)
        rows = read_report(store, arguments.first, arguments.last, arguments.tenant)
        async with aclosing(rows):
            async for row in rows:
                write(row)
    finally:
        await store.close()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m parley_session.report",
        description="What was used, by day (UTC), tenant, user and model.",
    )
    yesterday = utc_now().date() - timedelta(days=1)
    parser.add_argument(
        "--from", dest="first", type=_day, default=yesterday, metavar="DAY",
        help="first day, YYYY-MM-DD; yesterday unless given",
    )  # fmt: skip
    parser.add_argument(
        "--to", dest="last", type=_day, metavar="DAY", help="last day; the first unless given"
    )
    parser.add_argument("--tenant", help="this tenant's rows alone")
    parser.add_argument("--format", choices=sorted(FORMATS), default="csv")
    arguments = parser.parse_args(argv)
    arguments.last = arguments.last or arguments.first
    if not 0 <= (arguments.last - arguments.first).days < MAX_DAYS:
        parser.error(f"--to must be 0 to {MAX_DAYS - 1} days after --from")
    return arguments


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day, as 2026-11-30") from None


if __name__ == "__main__":
    sys.exit(main())
