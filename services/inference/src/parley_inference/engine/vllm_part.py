"""A part of an engine on vLLM that is spread over several machines: the workers of one of them.

The first machine, the leader, has the scheduler and serves (``engine.vllm``); the others run what
``vllm serve --headless`` runs: vLLM's executor, whose workers meet the leader's through
``torch.distributed`` and then take their work from its scheduler. Written against vLLM 0.32
(``vllm/entrypoints/cli/serve.py::run_headless``).
"""

import asyncio
import logging
from typing import Any, Final

from parley_inference.engine.vllm_env import remove_logging_config
from parley_inference.engine.vllm_load import VllmLoad
from parley_inference.engine.vllm_start import (
    VllmOptions,
    check_machine,
    engine_arguments,
)

_log = logging.getLogger(__name__)

_SHUTDOWN_SECONDS: Final = 10.0


class VllmPart:
    """Keeps the contract of ``follower.Part`` with vLLM."""

    def __init__(self, options: VllmOptions) -> None:
        self._options = options
        self._executor: Any = None
        self._loading: VllmLoad[Any] = VllmLoad(options)

    @property
    def alive(self) -> bool:
        """Whether this machine's workers are there."""
        return self._executor is not None and not self._executor.is_failed

    @property
    def progress(self) -> str:
        """How long it has been joining, and the last that vLLM said of it."""
        return self._loading.progress

    async def start(self) -> None:
        """Meet the leader and load this machine's share of the weights. Raises StartupError."""
        self._executor = await self._loading.run(self._join)
        _log.info(
            "this machine's part is loaded",
            extra={"rank": self._options.node_rank, "seconds": round(self._loading.over(), 1)},
        )

    def _join(self) -> Any:
        options = self._options
        adapters = self._loading.prepare()
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.executor.multiproc_executor import MultiprocExecutor

        on_cpu = check_machine(options)
        arguments = AsyncEngineArgs(**engine_arguments(options, adapters, on_cpu=on_cpu))
        return MultiprocExecutor(arguments.create_engine_config(headless=True))

    async def stop(self) -> None:
        """End this machine's workers, also while they are still loading."""
        executor = await self._loading.end(_SHUTDOWN_SECONDS)
        self._executor = None
        if executor is not None:
            await asyncio.to_thread(executor.shutdown)
        remove_logging_config()
