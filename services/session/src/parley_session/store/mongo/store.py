"""The `Store` on MongoDB, of its parts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from parley_session.clock import utc_now
from parley_session.store.mongo.chats import MongoChats
from parley_session.store.mongo.client import MongoOptions, OpenClient, open_client
from parley_session.store.mongo.indexes import INDEXES
from parley_session.store.mongo.jobs import MongoJobs
from parley_session.store.mongo.messages import MongoMessages
from parley_session.store.mongo.records import MongoRecords
from parley_session.store.mongo.runs import MongoRuns
from parley_session.store.mongo.seam import Seam, operation
from parley_session.store.mongo.usage import MongoUsage


class MongoStore(MongoChats, MongoMessages, MongoRuns, MongoRecords, MongoUsage, MongoJobs):
    """Chats, messages, runs, invalidations, keys, usage and jobs in a MongoDB database.

    `now` says which chats have expired in a list.
    """

    def __init__(
        self,
        options: MongoOptions,
        *,
        now: Callable[[], datetime] = utc_now,
        opener: OpenClient = open_client,
    ) -> None:
        self._connection = opener(options)
        seam = Seam(options.operation_seconds, options.max_in_flight)
        super().__init__(self._connection.database, seam, now)

    @operation
    async def prepare(self) -> None:
        """See `Store.prepare`."""
        for name, indexes in INDEXES.items():
            await self._database[name].create_indexes(list(indexes))

    @operation
    async def ping(self) -> None:
        """See `Store.ping`."""
        await self._database.command("ping")

    async def close(self) -> None:
        """See `Store.close`."""
        await self._connection.close()
