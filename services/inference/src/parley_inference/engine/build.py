"""Builds the engine that the settings name; only its own packages are imported."""

from typing import TYPE_CHECKING

from parley_inference.config import Settings
from parley_inference.engine.base import Engine

if TYPE_CHECKING:
    from parley_inference.engine.vllm_part import VllmPart
    from parley_inference.engine.vllm_start import VllmOptions


def build_engine(settings: Settings) -> Engine:
    """The engine, not started."""
    builders = {"sim": _sim, "openai": _openai, "vllm": _vllm}
    return builders[settings.engine](settings)


def _sim(settings: Settings) -> Engine:
    from parley_inference.engine.sim.engine import SimEngine, SimOptions

    return SimEngine(
        SimOptions(
            model_id=settings.served_model_id,
            revision=settings.model_revision or "1",
            context_length=settings.max_model_len or 8192,
            ttft=settings.sim_ttft,
            itl=settings.sim_itl,
            concurrency=settings.sim_concurrency,
            answer_tokens=settings.sim_answer_tokens,
            seed=settings.sim_seed,
            faults=settings.sim_faults,
        )
    )


def _openai(settings: Settings) -> Engine:
    from parley_inference.engine.openai.engine import OpenAiEngine, OpenAiOptions
    from parley_inference.engine.openai.tokens import Counter
    from parley_inference.engine.openai.upstream import Upstream, UpstreamOptions

    return OpenAiEngine(
        OpenAiOptions(
            model_id=settings.served_model_id,
            upstream_model=settings.model,
            dialect=settings.upstream_dialect,
            revision=settings.model_revision,
            context_length=settings.max_model_len,
            max_running=settings.max_num_seqs,
            retries=settings.upstream_retries,
            start_seconds=settings.upstream_start_seconds,
            look_seconds=settings.upstream_look_seconds,
            external=settings.upstream_fleet == "external",
        ),
        Upstream(
            UpstreamOptions(
                url=settings.upstream_url,
                key=settings.upstream_api_key.get_secret_value(),
                key_file=settings.upstream_api_key_file,
                ca_file=settings.upstream_ca_file,
                connections=settings.max_num_seqs,
                silence_seconds=settings.upstream_silence_seconds,
            )
        ),
        Counter(settings.upstream_tokenizer),
    )


def _vllm(settings: Settings) -> Engine:
    from parley_inference.engine.vllm import VllmEngine

    return VllmEngine(_vllm_options(settings))


def build_part(settings: Settings) -> "VllmPart":
    """This machine's part of an engine over several, not started."""
    from parley_inference.engine.vllm_part import VllmPart

    return VllmPart(_vllm_options(settings))


def _vllm_options(settings: Settings) -> "VllmOptions":
    from parley_inference.engine.vllm_start import VllmOptions

    return VllmOptions(
        model=settings.model,
        model_id=settings.served_model_id,
        revision=settings.model_revision,
        max_model_len=settings.max_model_len,
        max_num_seqs=settings.max_num_seqs,
        kv_cache_gib=settings.kv_cache_gib,
        threads=settings.cpu_threads,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        tensor_parallel=settings.tensor_parallel_size,
        pipeline_parallel=settings.pipeline_parallel_size,
        nodes=settings.nodes,
        node_rank=settings.node_rank,
        leader_address=settings.leader_address,
        leader_port=settings.leader_port,
        dtype=settings.dtype,
        quantization=settings.quantization,
        adapters=settings.adapters,
        adapter_base_model=settings.adapter_base_model,
        max_adapter_rank=settings.max_adapter_rank,
        max_adapters_at_once=settings.max_adapters_at_once,
        grammar_backend=settings.grammar_backend,
        grammar_seconds=settings.grammar_seconds,
        eager={"auto": None, "on": False, "off": True}[settings.compile],
        otlp_endpoint=settings.otlp_endpoint,
        log_level=settings.log_level,
        log_format=settings.log_format,
    )
