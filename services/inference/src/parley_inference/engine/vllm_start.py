"""What vLLM is started with, and what can be told to be impossible before it is."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from parley_inference.engine.adapters import Adapter, read_adapters
from parley_inference.engine.cpu_dtype import cpu_dtype
from parley_inference.engine.memory import available_bytes
from parley_inference.engine.weights import BadWeights, Shape, check_folder
from parley_kit.errors import StartupError

_log = logging.getLogger(__name__)

_GIB: Final = 1 << 30
# Prompts are shared in blocks. vLLM's own choice on CPU, 128 tokens, shares no short chat's.
_CPU_BLOCK_TOKENS: Final = 32
_RANKS_ARE: Final = "TENSOR_PARALLEL_SIZE times PIPELINE_PARALLEL_SIZE, by NODES, is"
# Ranks that vLLM has room for; an adapter of another rank takes the next one up.
_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """What the engine is started with. Zero or empty: vLLM's own choice.

    ``eager``: None: compile unless a C++ compiler is lacking where one is needed (CPU).
    ``grammar_seconds``: how long a caller waits for the judgement of its schema.
    ``nodes``: machines that share the model; the first has rank 0 and leads.
    """

    model: str
    model_id: str
    revision: str = ""
    max_model_len: int = 0
    max_num_seqs: int = 32
    kv_cache_gib: int = 1
    threads: str = ""
    gpu_memory_utilization: float = 0.9
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    nodes: int = 1
    node_rank: int = 0
    leader_address: str = ""
    leader_port: int = 29501
    dtype: str = "auto"
    quantization: str = ""
    adapters: Mapping[str, Path] = field(default_factory=dict)
    adapter_base_model: str = ""
    max_adapter_rank: int = 64
    max_adapters_at_once: int = 4
    grammar_backend: str = "xgrammar"
    grammar_seconds: float = 5.0
    eager: bool | None = None
    otlp_endpoint: str = ""
    log_level: str = "info"
    log_format: str = "json"

    @property
    def local_ranks(self) -> int:
        """Processes of this machine that hold a part of the model each."""
        return self.tensor_parallel * self.pipeline_parallel // self.nodes


def check_files(options: VllmOptions) -> list[Adapter]:
    """Read the adapters, and look whether the model's files are whole.

    A model that is not a folder is vLLM's to fetch. Raises StartupError.
    """
    folder = Path(options.model)
    shapes: dict[str, Shape] = {}
    if folder.is_dir():
        try:
            shapes = check_folder(folder)
        except BadWeights as error:
            raise StartupError(f"the model cannot be served: {error}") from error
    return read_adapters(
        options.adapters,
        max_rank=options.max_adapter_rank,
        base_model=options.adapter_base_model,
        shapes=shapes,
    )


def check_machine(options: VllmOptions) -> bool:
    """Whether vLLM runs on CPU here. Raises StartupError for more than this machine has."""
    from vllm.platforms import current_platform

    on_cpu = bool(current_platform.is_cpu())
    ranks = options.local_ranks
    if on_cpu:
        from vllm.utils.cpu_resource_utils import get_visible_memory_node

        mistake = cpu_mistake(ranks, options.threads, len(get_visible_memory_node()))
        mistake = mistake or memory_mistake(options, available_bytes())
    else:
        mistake = gpu_mistake(ranks, current_platform.device_count())
    if mistake:
        raise StartupError(mistake)
    return on_cpu


def gpu_mistake(ranks: int, devices: int) -> str:
    """Why ``ranks`` processes cannot have a GPU each; empty: they can."""
    if ranks <= devices:
        return ""
    return f"{_RANKS_ARE} {ranks}, and {devices} GPUs are visible"


def cpu_mistake(ranks: int, threads: str, nodes: int) -> str:
    """Why ``ranks`` processes cannot share the cores; empty: they can.

    vLLM gives each a NUMA node, or the cores that ``threads`` names for it (`0-3|4-7`).
    """
    if threads == "nobind":
        return ""
    named = threads.count("|") + 1
    if threads and named != ranks:
        return f"CPU_THREADS names cores for {named} processes, and {_RANKS_ARE} {ranks}"
    if not threads and ranks > nodes:
        return (
            f"{_RANKS_ARE} {ranks}, and this CPU has {nodes} NUMA nodes: name the cores of each "
            "process in CPU_THREADS, as in `0-3|4-7`"
        )
    return ""


def memory_mistake(options: VllmOptions, available: int | None) -> str:
    """Why weights and KV cache do not fit into memory; empty: they do, or nobody knows."""
    weights = sum(path.stat().st_size for path in Path(options.model).glob("*.safetensors"))
    wanted = options.kv_cache_gib * _GIB + weights // options.nodes
    if available is None or wanted <= available:
        return ""
    return (
        f"there is too little memory: KV_CACHE_GIB and the weights need {wanted / _GIB:.1f} GiB, "
        f"and {available / _GIB:.1f} GiB are available"
    )


def engine_arguments(
    options: VllmOptions, adapters: Sequence[Adapter], *, on_cpu: bool
) -> dict[str, Any]:
    """The arguments of vLLM's engine."""
    arguments: dict[str, Any] = {
        "model": options.model,
        "revision": options.revision or None,
        "served_model_name": options.model_id,
        "max_num_seqs": options.max_num_seqs,
        "enable_prefix_caching": True,
        "scheduling_policy": "priority",
        "enforce_eager": runs_eager(options.eager, on_cpu=on_cpu),
        "enable_log_requests": False,
        "disable_log_stats": False,
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "tensor_parallel_size": options.tensor_parallel,
        "pipeline_parallel_size": options.pipeline_parallel,
        "dtype": dtype_of(options, on_cpu=on_cpu),
        "quantization": options.quantization or None,
        "otlp_traces_endpoint": options.otlp_endpoint or None,
    }
    if options.nodes > 1:
        arguments |= {
            "nnodes": options.nodes,
            "node_rank": options.node_rank,
            "master_addr": options.leader_address,
            "master_port": options.leader_port,
            "distributed_executor_backend": "mp",
        }
    if options.max_model_len:
        arguments["max_model_len"] = options.max_model_len
    if on_cpu:
        arguments["block_size"] = _CPU_BLOCK_TOKENS
    if adapters:
        rank = max(adapter.rank for adapter in adapters)
        # On CPU vLLM 0.32 takes "no adapter" for the last slot (`lora/ops/torch_ops`), so that one
        # has to stay empty: there is room for all adapters and one more.
        slots = min(len(adapters), options.max_adapters_at_once)
        slots = len(adapters) + 1 if on_cpu else slots
        arguments |= {
            "enable_lora": True,
            "max_loras": slots,
            "max_cpu_loras": max(len(adapters), slots),
            "max_lora_rank": next(known for known in _RANKS if known >= rank),
        }
    return arguments


def dtype_of(options: VllmOptions, *, on_cpu: bool) -> str:
    """The type of weights and activations, by vLLM's name for it."""
    # Machines that share a model must choose alike, and each knows its own memory alone.
    if options.dtype != "auto" or not on_cpu or options.quantization or options.nodes > 1:
        return options.dtype
    beside = options.kv_cache_gib * _GIB
    chosen = cpu_dtype(Path(options.model), beside=beside, available=available_bytes())
    if chosen != "auto":
        _log.info(
            "on this CPU another type of numbers than the model's own is taken",
            extra={"dtype": chosen},
        )
    return chosen


def runs_eager(wanted: bool | None, *, on_cpu: bool) -> bool:
    """Whether to run the model as written, without compiling it.

    Code compiled for a CPU without AVX-512 was seen to draw other tokens from bfloat16
    weights than the model as written does (torch 2.13, g++ 12), and took minutes to compile.
    """
    if wanted is not None:
        return wanted
    if not on_cpu:
        return False
    import torch

    compilers = shutil.which("g++") or shutil.which("clang++")
    return compilers is None or not torch.cpu._is_avx512_supported()
