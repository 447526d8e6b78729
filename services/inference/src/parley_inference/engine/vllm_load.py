"""The loading of a model on vLLM, which takes minutes: how it fares, why it failed, its end."""

import asyncio
import logging
import multiprocessing
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from parley_inference.engine.adapters import Adapter
from parley_inference.engine.start_notes import StartNotes, sentence_of
from parley_inference.engine.vllm_env import prepare_environment
from parley_inference.engine.vllm_start import VllmOptions, check_files
from parley_kit.errors import StartupError

_log = logging.getLogger(__name__)

_PROGRESS_SECONDS: Final = 5.0
_SILENT: Final = "a process that is killed, as where memory runs out, does not say why"

Loaded = TypeVar("Loaded")


class VllmLoad(Generic[Loaded]):
    """Loads in a thread. ``notes``, once there are any: what vLLM's processes say meanwhile."""

    def __init__(self, options: VllmOptions) -> None:
        self._options = options
        self._began = 0.0
        self._thread: asyncio.Future[Loaded] | None = None
        self.notes: StartNotes | None = None

    @property
    def progress(self) -> str:
        """How long it has been loading, and the last that vLLM said of it; empty once ``over``."""
        if not self._began:
            return ""
        seconds = round(time.monotonic() - self._began)
        last = self._last
        return f"loading the model for {seconds} s" + (f"; vLLM: {last}" if last else "")

    def prepare(self) -> list[Adapter]:
        """Look at the files, and make this process ready for vLLM, which is not imported yet.

        Returns the adapters. Raises StartupError.
        """
        options = self._options
        adapters = check_files(options)
        self.notes = prepare_environment(
            model=options.model,
            kv_cache_gib=options.kv_cache_gib,
            threads=options.threads,
            log_level=options.log_level,
            log_format=options.log_format,
        )
        return adapters

    async def run(self, load: Callable[[], Loaded]) -> Loaded:
        """What ``load`` returns, which blocks for as long as it takes. Raises StartupError."""
        self._began = began = time.monotonic()
        self._thread = asyncio.get_running_loop().run_in_executor(None, load)
        while True:
            done, _ = await asyncio.wait({self._thread}, timeout=_PROGRESS_SECONDS)
            if done:
                break
            seconds = round(time.monotonic() - began)
            _log.info("loading the model", extra={"seconds": seconds, "last": self._last})
        try:
            return self._thread.result()
        except StartupError:
            raise
        except Exception as error:
            model = self._options.model
            raise StartupError(f"vLLM cannot serve {model}: {self.why(error)}") from error

    def why(self, error: Exception) -> str:
        """Why it failed: what the process that failed has said, else what reached us."""
        said = self.notes.cause if self.notes is not None else ""
        if said and "background process" not in said:
            return said
        return f"{said or sentence_of(error)} ({_SILENT})"

    def over(self) -> float:
        """The start is over: no more notes are taken. Returns the seconds that it took."""
        took = time.monotonic() - self._began
        self._began = 0.0
        if self.notes is not None:
            self.notes.close()
        return took

    async def end(self, seconds: float) -> Loaded | None:
        """End it if it goes on still, within ``seconds``; what it has loaded, if it has."""
        thread, self._thread = self._thread, None
        if thread is None:
            return None
        if not thread.done():
            # The thread cannot be interrupted; without its children it fails at once.
            for child in multiprocessing.active_children():
                child.terminate()
            await asyncio.wait({thread}, timeout=seconds)
        return thread.result() if thread.done() and not thread.exception() else None

    @property
    def _last(self) -> str:
        return self.notes.last if self.notes is not None else ""
