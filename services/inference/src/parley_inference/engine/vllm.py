"""vLLM in this process: ``AsyncLLM``, its scheduler and model in child processes of its own.

Token ids go in and come out; rendering and detokenising are done here, so that every token's text
is known. Prefix caching is on, priorities are honoured, outputs are deltas. Written against
vLLM 0.32 (``vllm/v1/engine/async_llm.py``).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

from parley_inference.engine.adapters import Adapter
from parley_inference.engine.base import (
    Continuation,
    EngineDead,
    EngineRequest,
    Finish,
    GenerationFailed,
    Message,
    ModelInfo,
    Prompt,
    RequestRefused,
    Role,
    Sampling,
    Step,
    TokenCounts,
)
from parley_inference.engine.grammar import GrammarCheck, vllm_judge
from parley_inference.engine.hf_tokenizer import HfTokenizer
from parley_inference.engine.revision import folder_revision
from parley_inference.engine.seeds import seed_at
from parley_inference.engine.vllm_env import remove_logging_config
from parley_inference.engine.vllm_load import VllmLoad
from parley_inference.engine.vllm_start import (
    VllmOptions,
    check_machine,
    engine_arguments,
)
from parley_kit.errors import StartupError

_log = logging.getLogger(__name__)

_FINISHES: Final = {"stop": Finish.STOP, "length": Finish.LENGTH}
_SHUTDOWN_SECONDS: Final = 10.0


class VllmEngine:
    """Keeps the contract of ``engine.base.Engine`` with vLLM."""

    def __init__(self, options: VllmOptions) -> None:
        self._options = options
        self._llm: Any = None
        self._loading: VllmLoad[tuple[Any, HfTokenizer, ModelInfo]] = VllmLoad(options)
        self._tokenizer: HfTokenizer | None = None
        self._info: ModelInfo | None = None
        self._stopped = False
        self._kv_usage = 0.0
        # By name, what vLLM takes with a request.
        self._adapters: dict[str, Any] = {}
        self._grammars: GrammarCheck | None = None

    @property
    def info(self) -> ModelInfo:
        """What is served; valid once started."""
        if self._info is None:
            raise EngineDead("the engine has not started")
        return self._info

    @property
    def alive(self) -> bool:
        """Whether vLLM's processes are there and answer."""
        return self._llm is not None and not self._stopped and not self._llm.errored

    @property
    def trouble(self) -> str:
        """None that passes: vLLM serves or is dead."""
        return ""

    @property
    def progress(self) -> str:
        """How long the model has been loading, and the last that vLLM said of it."""
        return self._loading.progress

    @property
    def kv_free_ratio(self) -> float:
        """Share of the KV cache that is free, as of the engine's last step."""
        return 1.0 - self._kv_usage

    # Start and end

    async def start(self) -> None:
        """Load the model in a thread, then the adapters, then draw a token to warm up."""
        self._llm, self._tokenizer, self._info = await self._loading.run(self._load)
        await self._load_adapters()
        await self._warm_up()
        _log.info(
            "the model is loaded",
            extra={
                "model": self._info.model_id,
                "seconds": round(self._loading.over(), 1),
                "context_length": self._info.context_length,
                "chat_template": self._tokenizer.has_template,
            },
        )

    async def _load_adapters(self) -> None:
        for name, request in self._adapters.items():
            try:
                await self._llm.add_lora(request)
            except Exception as error:
                raise StartupError(
                    f"the adapter {name} cannot be served: {self._loading.why(error)}"
                ) from error

    async def _warm_up(self) -> None:
        prompt = await self.prepare([Message(Role.USER, "Hello")], 0)
        request = EngineRequest("warm-up", prompt, Sampling(max_tokens=2, temperature=0.0))
        async for _ in self.generate(request):
            pass

    def _load(self) -> tuple[Any, HfTokenizer, ModelInfo]:
        """Build the engine; blocks for as long as the model takes to load."""
        options = self._options
        adapters = self._loading.prepare()
        from vllm.config import StructuredOutputsConfig
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.lora.request import LoRARequest
        from vllm.v1.engine.async_llm import AsyncLLM

        on_cpu = check_machine(options)
        arguments = engine_arguments(options, adapters, on_cpu=on_cpu)
        # One for all: vLLM takes every schema to the compiler that the first one was taken to,
        # which need not be the one that judged it where the choice is vLLM's.
        arguments["structured_outputs_config"] = StructuredOutputsConfig(
            backend=options.grammar_backend
        )

        class Llm(AsyncLLM):  # type: ignore[misc]  # vLLM has no types here
            def __del__(self) -> None:
                """Nothing: ``stop`` has ended it; run by a dying interpreter, vLLM's own fails."""

        llm = Llm.from_engine_args(AsyncEngineArgs(**arguments), stat_loggers=[self._stat_logger()])
        try:
            tokenizer = HfTokenizer(_load_tokenizer(options))
            judge = vllm_judge(llm.vllm_config, _load_tokenizer(options))
            self._grammars = GrammarCheck(judge, options.grammar_seconds)
            # Numbers tell them apart in the engine, names in the prefix cache.
            self._adapters = {
                adapter.name: LoRARequest(adapter.name, number, str(adapter.folder))
                for number, adapter in enumerate(adapters, 1)
            }
            return llm, tokenizer, self._describe(llm, tokenizer, adapters)
        except BaseException:
            llm.shutdown()
            raise

    def _describe(self, llm: Any, tokenizer: HfTokenizer, adapters: Sequence[Adapter]) -> ModelInfo:
        config = llm.model_config
        ends = config.try_get_generation_config().get("eos_token_id")
        end_ids = {ends} if isinstance(ends, int) else set(ends or ())
        if (own := llm.get_tokenizer().eos_token_id) is not None:
            end_ids.add(own)
        folder = Path(self._options.model)
        found = folder_revision(folder) if folder.is_dir() else config.hf_config._commit_hash
        revision = self._options.revision or found or ""
        return ModelInfo(
            model_id=self._options.model_id,
            engine="vllm",
            revision=revision,
            context_length=config.max_model_len,
            tokenizer_id=tokenizer.tokenizer_id,
            vocab_size=config.get_vocab_size(),
            end_token_ids=frozenset(end_ids),
            max_running=self._options.max_num_seqs,
            adapters={adapter.name: f"{revision}+{adapter.revision}" for adapter in adapters},
        )

    def _stat_logger(self) -> Any:
        """A stat logger of vLLM that keeps the one figure needed here."""
        from vllm.v1.metrics.loggers import StatLoggerBase

        engine = self

        class KvUsage(StatLoggerBase):  # type: ignore[misc]  # vLLM has no types here
            def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
                pass

            def record(self, scheduler_stats: Any, *_: Any, **__: Any) -> None:
                if scheduler_stats is not None:
                    engine._kv_usage = scheduler_stats.kv_cache_usage

            def log_engine_initialized(self) -> None:
                pass

        return KvUsage

    async def stop(self) -> None:
        """End vLLM and its processes, also while it is still loading."""
        self._stopped = True
        loaded = await self._loading.end(_SHUTDOWN_SECONDS)
        llm, self._llm = loaded[0] if loaded else None, None
        if llm is not None:
            if llm.output_handler is not None:
                # First: it would take the end of the engine's process for a failure.
                llm.output_handler.cancel()
            await asyncio.to_thread(llm.shutdown, _SHUTDOWN_SECONDS)
        remove_logging_config()
        if self._tokenizer is not None:
            self._tokenizer.close()
        if self._grammars is not None:
            self._grammars.close()

    # Prompts

    async def prepare(self, messages: Sequence[Message], template_time: int) -> Prompt:
        """Render with the model's chat template, or the plain one."""
        return Prompt(await self._tok.render(messages, template_time), messages)

    async def count(self, messages: Sequence[Message]) -> TokenCounts:
        """Count tokens with the model's tokenizer and template."""
        return await self._tok.count(messages)

    @property
    def _tok(self) -> HfTokenizer:
        if self._tokenizer is None:
            raise EngineDead("the engine has not started")
        return self._tokenizer

    async def check(self, sampling: Sampling) -> None:
        """vLLM has every option of the contract; schemas are judged by what compiles them."""
        if sampling.json_schema and self._grammars is not None:
            await self._grammars.check(sampling.json_schema)

    def continuation(self, sampling: Sampling) -> Continuation:
        """By drawing anew; not where penalties or a grammar depend on the tokens before.

        Greedy answers are not exact either: batches of another make-up round differently.
        """
        return Continuation.NONE if sampling.constrained else Continuation.SAMPLED

    def drawn(self, token_ids: Sequence[int]) -> int:
        """Each id is a token."""
        return len(token_ids)

    def decode(self, prompt: Prompt, token_ids: Sequence[int]) -> list[str | None]:
        """The texts that the tokens complete."""
        return list(map(self._tok.decoder(prompt.token_ids).push, token_ids))

    # Answers

    async def generate(self, request: EngineRequest) -> AsyncGenerator[Step, None]:
        """Draw an answer; see the contract."""
        from vllm.exceptions import VLLMClientError
        from vllm.inputs.engine import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError

        if not self.alive:
            raise EngineDead("vLLM is not running")
        decoder = self._tok.decoder(request.prompt.token_ids)
        for token_id in request.generated:
            decoder.push(token_id)
        # vLLM aborts the request when its generator is closed.
        outputs = self._llm.generate(
            tokens_input(
                [*request.prompt.token_ids, *request.generated],
                cache_salt=request.cache_salt or None,
            ),
            _sampling_params(request),
            request.request_id,
            lora_request=self._adapters[request.adapter] if request.adapter else None,
            priority=request.priority,
            trace_headers=request.trace_headers or None,
        )
        first = True
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    answer = output.outputs[0]
                    step = Step(answer.token_ids, [decoder.push(t) for t in answer.token_ids])
                    if first:
                        first = False
                        step.cached_prompt_tokens = output.num_cached_tokens or 0
                        step.scheduled_at = output.metrics.scheduled_ts if output.metrics else 0.0
                    if output.finished:
                        step.finish = _FINISHES.get(answer.finish_reason)
                        if step.finish is None:
                            raise GenerationFailed(
                                f"vLLM ended the request: {answer.finish_reason}"
                            )
                    yield step
        except EngineDeadError as error:
            raise EngineDead("vLLM's engine process has died") from error
        except VLLMClientError as error:
            raise RequestRefused(_field_of(error), _refusal(error)) from error
        except (EngineDead, GenerationFailed):
            raise
        except Exception as error:
            # Whatever else vLLM raises concerns this request alone, unless it has died of it.
            if not self.alive:
                raise EngineDead("vLLM's engine process has died") from error
            _log.exception("vLLM lost a request")
            raise GenerationFailed("vLLM lost the request") from error


def _load_tokenizer(options: VllmOptions) -> Any:
    """A tokenizer of our own: vLLM uses its one from other threads."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(options.model, revision=options.revision or None)


def _sampling_params(request: EngineRequest) -> Any:
    from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

    sampling = request.sampling
    schema = sampling.json_schema
    return SamplingParams(
        max_tokens=sampling.max_tokens - len(request.generated),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=seed_at(sampling.seed, len(request.generated)),
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        structured_outputs=StructuredOutputsParams(json=schema) if schema else None,
        output_kind=RequestOutputKind.DELTA,
        detokenize=False,
        # It belongs to this request alone.
        skip_clone=True,
    )


def _field_of(error: Exception) -> str:
    parameter = getattr(error, "parameter", None)
    return f"sampling.{parameter}" if parameter else "sampling"


def _refusal(error: Exception) -> str:
    """vLLM's sentence without the value it refers to, which may be prompt text."""
    return str(error.args[0] if error.args else error).splitlines()[0][:300]
