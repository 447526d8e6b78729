"""What a platform says it has, collected by REST, from MongoDB and from Redis."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from redis.asyncio import Redis

from support.ledger import Ledger
from support.verdict import FINAL_STATES, Evidence, LogStream

LOG_PREFIX = "parley:log:"
WAKE_PREFIX = f"{LOG_PREFIX}wake:"
# The cache's own books, which bound it, are kept for good.
CACHE_PREFIX = "parley:cache:"
# The queue's own: what gives its numbers, and what is rung. All else of it is of what waits.
QUEUE_PREFIX = "parley:{queue}:"
QUEUE_STANDING = frozenset({QUEUE_PREFIX + "number", QUEUE_PREFIX + "bell"})
QUEUE_TOTAL = QUEUE_PREFIX + "total"
PAGE = 200
# Requests at a time.
WIDTH = 8


async def collect(
    ledger: Ledger, *, url: str, mongodb_uri: str, redis_url: str, database: str = "parley"
) -> Evidence:
    """Collect what concerns a ledger, and what anybody may have left behind."""
    evidence = Evidence()
    await _ask_rest(ledger, url, evidence)
    client: AsyncMongoClient[dict[str, Any]]
    async with AsyncMongoClient(mongodb_uri, serverSelectionTimeoutMS=5000) as client:
        found: AsyncDatabase[dict[str, Any]] = client[database]
        async for chat in found.chats.find({}, {"pending": 1, "messageCount": 1}):
            evidence.stored_chats[chat["_id"]] = chat
        messages: dict[str, list[dict[str, Any]]] = {}
        async for message in found.messages.find({}).sort("seq"):
            messages.setdefault(message["chat"], []).append(message)
        evidence.stored_messages.update(messages)
        async for run in found.runs.find({}):
            evidence.stored_runs[run["_id"]] = run
    await look_into_redis(redis_url, evidence)
    return evidence


async def unended(mongodb_uri: str, database: str = "parley") -> list[str]:
    """The runs that are not at their end, and the chats with a turn in progress."""
    client: AsyncMongoClient[dict[str, Any]]
    async with AsyncMongoClient(mongodb_uri, serverSelectionTimeoutMS=5000) as client:
        found: AsyncDatabase[dict[str, Any]] = client[database]
        runs = await found.runs.distinct("_id", {"state": {"$nin": sorted(FINAL_STATES)}})
        chats = await found.chats.distinct("_id", {"pending.0": {"$exists": True}})
    return [*runs, *chats]


async def queued(redis_url: str) -> list[str]:
    """The keys of the queue that stand for something that waits."""
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        return await _of_the_queue(redis)


async def _of_the_queue(redis: Redis) -> list[str]:
    keys = [key async for key in redis.scan_iter(match=f"{QUEUE_PREFIX}*", count=500)]
    found = sorted({*keys} - QUEUE_STANDING - {QUEUE_TOTAL})
    total = int(await redis.get(QUEUE_TOTAL) or 0)
    return found + ([f"{QUEUE_TOTAL} is {total}"] if total else [])


async def _ask_rest(ledger: Ledger, url: str, evidence: Evidence) -> None:
    gate = asyncio.Semaphore(WIDTH)
    users = {ask.chat: ask.client for ask in ledger.acknowledged_asks()}
    async with httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as http:

        async def get(path: str, user: str, **query: Any) -> Any:
            async with gate:
                response = await http.get(path, headers={"x-user-id": user}, params=query)
            return response.json() if response.status_code == 200 else None

        async def read_chat(chat: str, user: str) -> None:
            pages: list[Any] = []
            query: dict[str, Any] = {"limit": PAGE}
            while (answer := await get(f"/chat/{chat}", user, **query)) is not None:
                pages[:0] = answer["messages"]
                if not answer["hasMore"]:
                    evidence.chats[chat] = pages
                    return
                query["before"] = answer["messages"][0]["messageID"]

        async def read_run(run: str, user: str) -> None:
            if (answer := await get(f"/runs/{run}", user)) is not None:
                evidence.runs[run] = answer

        async with asyncio.TaskGroup() as group:
            for chat, user in users.items():
                group.create_task(read_chat(chat, user))
            for ask in ledger.acknowledged_asks():
                group.create_task(read_run(ask.run, ask.client))


async def look_into_redis(redis_url: str, evidence: Evidence) -> None:
    """Collect the logs, and what never expires and is not there for good."""
    streams, lasting = [], []
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        async for key in redis.scan_iter(count=500):
            milliseconds = await redis.pttl(key)
            if milliseconds == -2:  # it has just expired
                continue
            seconds = None if milliseconds == -1 else milliseconds / 1000
            if key.startswith(LOG_PREFIX) and not key.startswith(WAKE_PREFIX):
                run, _, attempt = key.removeprefix(LOG_PREFIX).rpartition(":")
                streams.append(LogStream(key, run.strip("{}"), int(attempt), seconds))
            elif seconds is None and not key.startswith((CACHE_PREFIX, QUEUE_PREFIX)):
                lasting.append(key)
        lasting += await _of_the_queue(redis)
    evidence.streams, evidence.lasting_keys = streams, lasting
