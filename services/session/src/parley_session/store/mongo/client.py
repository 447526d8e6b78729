"""Opening a MongoDB client: motor, or PyMongo's own asyncio client.

The store uses only what both offer under the same names, so the switch is the
value of `open_client`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, WriteConcern
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.monitoring import CommandListener

from parley_session.store.documents.fields import Document


@dataclass(frozen=True, slots=True)
class MongoOptions:
    """Where the database is, and how long anything may take.

    `operation_seconds` bounds one operation in whole: finding a server, waiting for a
    connection, the server's work and the network.
    """

    uri: str
    database: str = "parley"
    operation_seconds: float = 5.0
    connect_seconds: float = 3.0
    max_connections: int = 64
    # Operations in progress or waiting, in this process; more are refused.
    max_in_flight: int = 1024
    # Told of every command, as PyMongo does.
    listeners: Sequence[CommandListener] = ()


@dataclass(frozen=True, slots=True)
class MongoConnection:
    """A client and the database in it."""

    client: Any
    database: AsyncDatabase[Document]

    async def close(self) -> None:
        """Close the client; motor's would block the loop."""
        if inspect.iscoroutinefunction(self.client.close):
            await self.client.close()
        else:
            await asyncio.to_thread(self.client.close)


# Opens a client; it connects only when it is first used.
OpenClient = Callable[[MongoOptions], MongoConnection]


def open_motor(options: MongoOptions) -> MongoConnection:
    """Open a client of motor."""
    return _connection(AsyncIOMotorClient(options.uri, **_settings(options)), options)


def open_pymongo(options: MongoOptions) -> MongoConnection:
    """Open PyMongo's own asyncio client."""
    return _connection(AsyncMongoClient(options.uri, **_settings(options)), options)


open_client: OpenClient = open_motor


def _connection(client: Any, options: MongoOptions) -> MongoConnection:
    # Reads are of the primary's latest state ("local"): with "majority" a document that a
    # unique index has just refused to insert twice might not be readable yet.
    database = client.get_database(
        options.database, write_concern=WriteConcern(w="majority", j=True)
    )
    # Motor's has the same methods; only PyMongo's has complete types.
    return MongoConnection(client, cast("AsyncDatabase[Document]", database))


def _settings(options: MongoOptions) -> dict[str, Any]:
    # `timeoutMS` covers an operation in whole and tells the server what is left of it; the
    # other bounds are for what goes on in the background.
    bound = round(options.operation_seconds * 1000)
    connect = round(options.connect_seconds * 1000)
    return {
        "appname": "parley-session",
        "tz_aware": True,
        "timeoutMS": bound,
        "serverSelectionTimeoutMS": bound,
        "waitQueueTimeoutMS": bound,
        "socketTimeoutMS": bound,
        "connectTimeoutMS": connect,
        "maxPoolSize": options.max_connections,
        "event_listeners": list(options.listeners),
        "retryWrites": True,
        "retryReads": True,
    }
