"""Where engines are looked for: the text of a setting, and the sets of several places as one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence

from parley_kit.resolver import Resolver, parse_targets
from parley_session.fleet.discovery import ServiceResolver

_SCHEME = "kubernetes:///"
_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_SERVICE = re.compile(
    rf"(?P<service>{_LABEL})(?:\.(?P<namespace>{_LABEL}))?:(?P<port>{_LABEL}|\d{{1,5}})"
)
# Services that one setting may name: one thread and one watch each.
MAX_SERVICES = 32


class Together:
    """The union of what several resolvers name; each keeps its last known set."""

    def __init__(self, resolvers: Sequence[Resolver]) -> None:
        self.resolvers = resolvers
        self._found: dict[int, frozenset[str]] = {}

    async def watch(self) -> AsyncIterator[frozenset[str]]:
        """Yield the union when it changes; before all have spoken, what is known."""
        self._found = found = {}
        changed = asyncio.Event()

        async def follow(number: int, resolver: Resolver) -> None:
            async for addresses in resolver.watch():
                found[number] = addresses
                changed.set()

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(follow(n, r)) for n, r in enumerate(self.resolvers)]
            try:
                while True:
                    await changed.wait()
                    changed.clear()
                    yield frozenset().union(*found.values())
            finally:
                for task in tasks:
                    task.cancel()

    def server_name(self, address: str) -> str:
        """Return the name by which the resolver that found the address knows it."""
        for number, addresses in self._found.items():
            if address in addresses:
                return self.resolvers[number].server_name(address)
        return ""


def engine_targets(text: str) -> Resolver:
    """Read the targets of engines. Raises ValueError with a sentence.

    `kubernetes:///service.namespace:port,…` (the namespace may be absent: one's own; the
    port is a name or a number), else what kit's `parse_targets` takes.
    """
    if not text.strip().startswith(_SCHEME):
        return parse_targets(text)
    services = [_service(item.strip()) for item in text.split(",")]
    if len(services) > MAX_SERVICES:
        raise ValueError(f"at most {MAX_SERVICES} Services")
    return services[0] if len(services) == 1 else Together(services)


def _service(text: str) -> ServiceResolver:
    match = _SERVICE.fullmatch(text.removeprefix(_SCHEME)) if text.startswith(_SCHEME) else None
    if match is None:
        raise ValueError("must be kubernetes:///service.namespace:port, one or several by commas")
    return ServiceResolver(match["service"], match["namespace"] or "", match["port"])
