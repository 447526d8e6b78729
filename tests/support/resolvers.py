"""A resolver whose addresses the test sets."""

import asyncio
from collections.abc import AsyncIterator


class ListedResolver:
    """Yields what ``set`` was given, at first and on each change."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = frozenset(addresses)
        self._changed = asyncio.Event()

    def set(self, *addresses: str) -> None:
        """Change the set."""
        self._addresses = frozenset(addresses)
        self._changed.set()

    async def watch(self) -> AsyncIterator[frozenset[str]]:
        """Yield the set now and after each change."""
        while True:
            self._changed.clear()
            yield self._addresses
            await self._changed.wait()

    def server_name(self, address: str) -> str:
        """Each goes by its own name."""
        return ""
