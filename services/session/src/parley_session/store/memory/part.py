"""What the parts of the store in memory share."""

from __future__ import annotations

from typing import TypeVar

from parley_session.domain.model import Chat, Message, Principal, Run
from parley_session.store.base import StoreUnavailable

_Owned = TypeVar("_Owned", Chat, Message, Run)


class Part:
    """A part of a store. While `away` is set, every method raises `StoreUnavailable`."""

    def __init__(self) -> None:
        self.away = False

    def _reach(self) -> None:
        if self.away:
            raise StoreUnavailable("the store is away")


def owned(principal: Principal, kept: _Owned | None) -> _Owned | None:
    """Return what is the caller's; None for anything else."""
    if kept is None or kept.tenant != principal.tenant:
        return None
    return kept if principal.user in (None, kept.user) else None
