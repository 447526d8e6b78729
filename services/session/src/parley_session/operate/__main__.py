"""The operator's command: `python -m parley_session.operate`, with a replica's settings.

    verify                  look through the store for what must not be
    poisoned                list the runs that failed because their replicas were lost
    put-back RUN…           ask their questions again
    purge --tenant TENANT   count cached answers; --yes removes them
    drain                   have the replica of this container stop, and wait for it

Exit codes: 0; 1, something was found, refused or left; 2, wrong settings or arguments; 3, a
part is away.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any

from parley_kit.config import load_settings
from parley_kit.errors import ServiceError, StartupError
from parley_kit.ids import uuid7
from parley_session.clock import Clock
from parley_session.config import SessionSettings
from parley_session.operate.draining import NoReplicaHere, drain
from parley_session.operate.poisoned import NotPutBack, describe, put_back
from parley_session.operate.purging import Selection, purge
from parley_session.operate.verifying import Verifier
from parley_session.store.base import StoreUnavailable
from parley_session.store.mongo.client import MongoOptions
from parley_session.store.mongo.inspecting import MongoInspector

EXIT_FOUND = 1
EXIT_AWAY = 3

Command = Callable[[SessionSettings, argparse.Namespace], Coroutine[Any, Any, int]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    arguments = _arguments(argv)
    command: Command = arguments.command
    settings = load_settings(SessionSettings)
    try:
        return asyncio.run(command(settings, arguments))
    except StoreUnavailable as error:
        _complain(f"the store is away: {error}")
    except TimeoutError:
        _complain("no replica of the cache is ready")
    except (ServiceError, StartupError) as error:
        _complain(str(error))
    return EXIT_AWAY


async def _verify(settings: SessionSettings, arguments: argparse.Namespace) -> int:
    store = _store(settings)
    verifier = Verifier(store, arguments.settle)
    count = 0
    try:
        async with aclosing(verifier.findings(arguments.tenant)) as findings:
            async for found in findings:
                count += 1
                _say(f"{found.what}  chat {found.chat}  {found.about}")
    finally:
        await store.close()
    looked = verifier.looked
    parts = "".join(f", {number} {name}" for name, number in looked.parts.items() if number)
    _say(f"{looked.chats} chats, {looked.tombstones} deleted ones{parts}: {count} findings")
    return EXIT_FOUND if count else 0


async def _poisoned(settings: SessionSettings, arguments: argparse.Namespace) -> int:
    store = _store(settings)
    count = 0
    try:
        async with aclosing(store.poisoned(arguments.tenant)) as found:
            async for run in found:
                count += 1
                _say(describe(run))
    finally:
        await store.close()
    _say(f"{count} poisoned runs")
    return 0


async def _put_back(settings: SessionSettings, arguments: argparse.Namespace) -> int:
    store = _store(settings)
    refused = 0
    try:
        for run_id in arguments.run:
            try:
                put = await put_back(store, Clock(), run_id, uuid7())
            except NotPutBack as error:
                refused += 1
                _complain(f"{run_id}: {error}")
            else:
                _say(f"{run_id}: asked again as {put.run} in chat {put.chat}")
    finally:
        await store.close()
    return EXIT_FOUND if refused else 0


async def _purge(settings: SessionSettings, arguments: argparse.Namespace) -> int:
    if not settings.cache_targets:
        _complain("PARLEY_SESSION_CACHE_TARGETS names no cache")
        return 2
    selection = Selection(arguments.tenant, arguments.user, arguments.model, arguments.chat)
    count = await purge(settings, selection, dry_run=not arguments.yes)
    if arguments.yes:
        _say(f"{count} cached answers removed")
    else:
        _say(f"{count} cached answers would be removed: say --yes to remove them")
    return 0


async def _drain(_settings: SessionSettings, arguments: argparse.Namespace) -> int:
    try:
        ended = await drain(arguments.pid, arguments.seconds)
    except NoReplicaHere as error:
        _complain(str(error))
        return EXIT_FOUND
    if not ended:
        _complain(f"process {arguments.pid} has not ended in {arguments.seconds:g} s")
        return EXIT_FOUND
    _say(f"process {arguments.pid} has ended")
    return 0


def _store(settings: SessionSettings) -> MongoInspector:
    return MongoInspector(
        MongoOptions(
            uri=settings.mongodb_uri.get_secret_value(),
            database=settings.mongodb_database,
            operation_seconds=settings.mongodb_timeout_seconds,
        )
    )


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m parley_session.operate",
        description="What an operator does now and then, with a replica's settings.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    verify = commands.add_parser("verify", help="look through the store for what must not be")
    verify.set_defaults(command=_verify)
    verify.add_argument("--tenant", help="this tenant's chats alone")
    verify.add_argument(
        "--settle", type=_seconds, default=2.0, metavar="SECONDS",
        help="pause before a finding is looked at again; 2 unless given",
    )  # fmt: skip

    poisoned = commands.add_parser("poisoned", help="list runs whose replicas were lost")
    poisoned.set_defaults(command=_poisoned)
    poisoned.add_argument("--tenant", help="this tenant's runs alone")

    back = commands.add_parser("put-back", help="ask the questions of poisoned runs again")
    back.set_defaults(command=_put_back)
    back.add_argument("run", nargs="+", help="id of a poisoned run")

    purging = commands.add_parser("purge", help="count or remove cached answers of a tenant")
    purging.set_defaults(command=_purge)
    purging.add_argument("--tenant", required=True)
    purging.add_argument("--user", default="", help="those that this user's questions made")
    purging.add_argument("--model", default="", help="those of this model")
    purging.add_argument("--chat", default="", help="those whose source is this chat")
    purging.add_argument("--yes", action="store_true", help="remove them, and not only count")

    draining = commands.add_parser("drain", help="have the replica of this container stop")
    draining.set_defaults(command=_drain)
    draining.add_argument("--pid", type=int, default=1, help="its process; 1 unless given")
    draining.add_argument(
        "--seconds", type=_seconds, default=60.0, help="longest wait; 60 unless given"
    )
    return parser.parse_args(argv)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 to 3600")
    return seconds


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _complain(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
