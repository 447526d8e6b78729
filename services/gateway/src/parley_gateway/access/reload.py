"""Re-reads the key file when it changes.

A changed file is one whose identity differs (inode, size, time of change): an
editor's rename and a Kubernetes Secret's symlink swap both show. A file that
cannot be read or parsed changes nothing: the last good keys stay valid, and the
log and a metric say so.
"""

import asyncio
import logging
from pathlib import Path

from parley_gateway import metrics
from parley_gateway.access.keyring import BadKeyFile, KeyRecord, KeyRing, load_key_file

log = logging.getLogger(__name__)

_Identity = tuple[int, int, int]


class KeyFileWatcher:
    """Keeps a ring in step with a file; looks every ``interval_seconds``, off the event loop."""

    def __init__(self, path: Path, ring: KeyRing, interval_seconds: float) -> None:
        self._path = path
        self._ring = ring
        self._interval = interval_seconds
        self._seen: _Identity | None = None
        self._complaint = ""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the file and begin to watch. Raises BadKeyFile, OSError."""
        self._seen, records = await asyncio.to_thread(self._read)
        self._ring.replace(records)
        log.info("keys loaded", extra={"keys": len(self._ring)})
        self._task = asyncio.create_task(self._watch(), name="key-file-watcher")

    async def stop(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def check(self) -> None:
        """Look once, and reload where the file has changed."""
        try:
            if await asyncio.to_thread(self._identity) == self._seen:
                return
            self._seen, records = await asyncio.to_thread(self._read)
        except (BadKeyFile, OSError) as error:
            self._complain(error)
            return
        self._complaint = ""
        self._ring.replace(records)
        metrics.KEY_RELOADS.labels("loaded").inc()
        log.info("keys reloaded", extra={"keys": len(self._ring)})

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.check()

    def _complain(self, error: Exception) -> None:
        sentence = error.strerror or "" if isinstance(error, OSError) else str(error)
        metrics.KEY_RELOADS.labels("refused").inc()
        # Once a change, not once a look.
        if sentence != self._complaint:
            self._complaint = sentence
            log.error("the key file is bad; the last good keys stay valid: %s", sentence)

    def _identity(self) -> _Identity:
        found = self._path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _read(self) -> tuple[_Identity, list[KeyRecord]]:
        # The identity first: a change between the two reads is seen next time.
        identity = self._identity()
        return identity, load_key_file(self._path)
