"""Where a handler's surroundings are read, and the store's failure becomes an answer."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc.aio

from parley_session.domain import errors
from parley_session.domain.model import Principal
from parley_session.principal import principal_of
from parley_session.store.base import StoreUnavailable

_log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


@contextmanager
def asked_by(context: Context) -> Iterator[Principal]:
    """Give the caller's principal; within, a store that is away is `store_unavailable`."""
    principal = principal_of(context.invocation_metadata())
    try:
        yield principal
    except StoreUnavailable as error:
        _log.warning("a call failed for want of the store", extra={"reason": str(error)})
        raise errors.store_unavailable() from error
