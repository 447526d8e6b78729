"""Judges JSON schemas by the compiler that vLLM will compile them with, before acceptance.

On a thread of its own, which the compiler runs on without Python's lock: tokens go on meanwhile.
``schema_bounds`` has limited how much there is to compile. Written against vLLM 0.32, whose engine
takes every schema to one compiler (``vllm/v1/structured_output/__init__.py``).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from parley_inference.engine.base import EngineBusy, RequestRefused
from parley_inference.engine.start_notes import sentence_of

FIELD: Final = "sampling.json_schema"
_REMEMBERED: Final = 256
_PENDING: Final = 8
_MAX_CHARACTERS: Final = 200

Judge = Callable[[str], str]


class GrammarCheck:
    """Asks ``judge``, which blocks, what is wrong with a schema; empty: nothing.

    ``seconds``: how long a caller waits. A judgement that takes longer goes on, and is
    remembered for whoever asks next.
    """

    def __init__(self, judge: Judge, seconds: float) -> None:
        self._judge = judge
        self._seconds = seconds
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grammars")
        self._verdicts: OrderedDict[str, str] = OrderedDict()
        self._pending: dict[str, asyncio.Future[str]] = {}

    async def check(self, schema: str) -> None:
        """Raise RequestRefused for a schema that cannot be compiled, or not in time.

        Raises EngineBusy while too many others are being judged.
        """
        verdict = self._verdicts.get(schema)
        if verdict is None:
            try:
                async with asyncio.timeout(self._seconds):
                    verdict = await asyncio.shield(self._judgement(schema))
            except TimeoutError as error:
                raise RequestRefused(FIELD, "takes too long to compile") from error
        if verdict:
            raise RequestRefused(FIELD, verdict)

    def _judgement(self, schema: str) -> asyncio.Future[str]:
        """One a schema, however many ask."""
        found = self._pending.get(schema)
        if found is not None:
            return found
        if len(self._pending) >= _PENDING:
            raise EngineBusy("too many schemas are being compiled", retry_after=self._seconds)
        loop = asyncio.get_running_loop()
        found = self._pending[schema] = loop.run_in_executor(self._thread, self._judge, schema)
        found.add_done_callback(lambda done: self._remember(schema, done))
        return found

    def _remember(self, schema: str, done: asyncio.Future[str]) -> None:
        del self._pending[schema]
        if done.cancelled() or done.exception() is not None:
            return
        self._verdicts[schema] = done.result()
        if len(self._verdicts) > _REMEMBERED:
            self._verdicts.popitem(last=False)

    def close(self) -> None:
        """End the thread, when it has done what it is at."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def vllm_judge(vllm_config: Any, tokenizer: Any) -> Judge:
    """vLLM's own judgement of a request with that schema, then its compiler's.

    ``tokenizer`` is used on the judging thread alone.
    """
    from vllm.sampling_params import SamplingParams, StructuredOutputsParams
    from vllm.v1.structured_output.backend_types import StructuredOutputOptions

    config = vllm_config.structured_outputs_config
    backend: Any = None

    def judge(schema: str) -> str:
        nonlocal backend
        try:
            params = SamplingParams(structured_outputs=StructuredOutputsParams(json=schema))
            params.verify(vllm_config.model_config, None, config, tokenizer)
            backend = backend or _backend(vllm_config, tokenizer)
            backend.compile_grammar(StructuredOutputOptions.JSON, schema)
            _forget(backend)
        except Exception as error:  # noqa: BLE001 - each compiler has errors of its own
            return f"cannot be compiled: {sentence_of(error)[:_MAX_CHARACTERS]}"
        return ""

    return judge


def _backend(vllm_config: Any, tokenizer: Any) -> Any:
    """The compiler that the engine will use, with its view of the vocabulary."""
    from vllm.v1.structured_output.backend_guidance import GuidanceBackend
    from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend

    kinds = {"xgrammar": XgrammarBackend, "guidance": GuidanceBackend}
    return kinds[vllm_config.structured_outputs_config.backend](
        vllm_config, tokenizer=tokenizer, vocab_size=vllm_config.model_config.get_vocab_size()
    )


def _forget(backend: Any) -> None:
    """Keep no compiled grammars here: the engine's process has its own."""
    compiler = getattr(backend, "compiler", None)
    if compiler is not None:
        compiler.clear_cache()
