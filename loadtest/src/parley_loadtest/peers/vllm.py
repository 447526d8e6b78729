"""Parley's whole path beside vLLM's own OpenAI server: the same model, engine and settings.

Both servers stand at the same time, on all cores, and answer in turns. At temperature 0
both draw the same tokens, so goodput differs by what stands around the engine alone.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from parley_loadtest.bench.cpu import BENCH, CpuMeter
from parley_loadtest.bench.table import aligned
from parley_loadtest.peers.processes import free_port, process
from parley_loadtest.peers.rounds import PeerLoad, PeerSamples, measure_peers
from parley_loadtest.peers.ways import OpenAiWay, ParleyWay, TimedWay
from parley_loadtest.target import NO_DELAY, NoTarget, sim_stack

VLLM, PARLEY = "vllm", "parley"
STREAMS = (1, 4, 16, 32)
START_SECONDS = 900.0
SETUP_SECONDS = 300.0
# What the inference service gives to its engine.
MAX_RUNNING = 32
CPU_BLOCK_TOKENS = 32
# Every CPU is quick at these; by default the two would differ on one without AVX-512.
DTYPE = "float32"
# Neither compiles the model: which does by default depends on the CPU, and the start is minutes.
AS_WRITTEN = {"inference": {"PARLEY_INFERENCE_COMPILE": "off", "PARLEY_INFERENCE_DTYPE": DTYPE}}
TARGET = 0.95


def seconds_of(options: argparse.Namespace) -> float:
    """About how long it takes, starts included."""
    # The last answers of a round end after its time.
    each = 2.0 * options.rounds * (1.5 * options.seconds + 5)
    return float(SETUP_SECONDS + each * len(options.streams))


async def bench_vllm(options: argparse.Namespace) -> str:
    """Measure all loads; give the tables. Raises NoTarget."""
    try:
        from parley_devstack.config import SMOLLM2
        from parley_devstack.paths import checkout
    except ImportError as exc:
        raise NoTarget("the devstack is not installed: run this in a checkout") from exc
    paths = checkout()
    python, model = paths.inference_venv / "bin" / "python", paths.models / SMOLLM2
    if not python.exists() or not model.is_dir():
        raise NoTarget("vLLM or the small model is not there: run `make setup` first")
    print("starting Parley on vLLM, and vLLM's own server…", flush=True)
    port = free_port()
    with await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="parley-peers-") as folder:
        async with (
            sim_stack(NO_DELAY, AS_WRITTEN, engine="vllm", start_seconds=START_SECONDS) as stack,
            process(
                _command(python, model, SMOLLM2, port),
                port=port,
                env=_environment(paths.home / "cache" / "vllm"),
                log=Path(folder) / "vllm.log",
                seconds=START_SECONDS,
            ) as pid,
        ):
            pids = {name: p for name in stack.names if (p := stack.pid(name)) is not None}
            ways: Mapping[str, Callable[[], TimedWay]] = {
                VLLM: lambda: OpenAiWay(f"http://127.0.0.1:{port}", SMOLLM2, 0.0),
                PARLEY: lambda: ParleyWay(stack.url, 0.0, options.cache),
            }
            engines = {
                f"{PARLEY} engine": _engine_of(pids["inference-1"]),
                f"{VLLM} engine": _engine_of(pid),
            }
            loads = [
                PeerLoad(f"{streams} streams", options.vllm_tokens, streams, options.seconds)
                for streams in options.streams
            ]
            meter = CpuMeter({**pids, VLLM: pid, **engines})
            results: list[PeerSamples] = []
            for load in loads:
                results += await measure_peers(ways, [load], options.rounds, meter)
                # At once: a later load may fail, and this one took minutes.
                print(report(results[-1:]), flush=True)
            return report(results)


def _command(python: Path, model: Path, name: str, port: int) -> list[str]:
    return [
        str(python), "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(model), "--served-model-name", name,
        "--host", "127.0.0.1", "--port", str(port),
        "--max-num-seqs", str(MAX_RUNNING), "--block-size", str(CPU_BLOCK_TOKENS),
        "--enable-prefix-caching", "--scheduling-policy", "priority",
        "--dtype", DTYPE, "--enforce-eager", "--disable-uvicorn-access-log",
    ]  # fmt: skip


def _environment(cache: Path) -> dict[str, str]:
    return {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_USE_AOT_COMPILE": "0",
        "VLLM_CACHE_ROOT": str(cache),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }


def _engine_of(pid: int) -> int:
    """The engine's core, below which its workers are: the server's child that has worked most."""
    children = psutil.Process(pid).children()
    if not children:
        raise NoTarget("the engine has no process of its own")
    return max(children, key=_worked).pid


def _worked(process: psutil.Process) -> float:
    family = [process, *process.children(recursive=True)]
    return sum(member.cpu_times().user for member in family)


def outside(samples: PeerSamples, way: str) -> float:
    """CPU seconds per 1,000 tokens of a way's processes, its engine's apart."""
    engine = f"{way} engine"
    others = {BENCH, f"{PARLEY} engine", f"{VLLM} engine"}
    mine: Callable[[str], bool] = (
        (lambda name: name == VLLM)
        if way == VLLM
        else (lambda name: name not in others and name != VLLM)
    )
    # A server's own figure includes its children's.
    return samples.cpu_per_thousand(way, mine) - samples.cpu_per_thousand(
        way, lambda name: name == engine
    )


def _figures(samples: PeerSamples, way: str) -> list[str]:
    return [
        samples.load.name,
        way,
        f"{samples.median(way, lambda s: s.tokens_per_second):.1f}",
        f"{1000 * samples.median(way, lambda s: s.first(0.5)):.0f}",
        f"{1000 * samples.median(way, lambda s: s.first(0.99)):.0f}",
        f"{outside(samples, way):.3f}",
    ]


def report(results: Sequence[PeerSamples]) -> str:
    """The figures, then what they come to as ratios."""
    rows = [["load", "way", "tokens/s", "TTFT p50 ms", "p99 ms", "CPU s/1,000 tokens outside"]]
    ratios = [["Parley / vLLM", "goodput (interval)", "TTFT p50", "TTFT p99", "goodput >= 0.95"]]
    for samples in results:
        rows += [_figures(samples, way) for way in samples.by_way]
        goodput = samples.ratio(PARLEY, VLLM, lambda s: s.tokens_per_second)
        ratios.append(
            [
                samples.load.name,
                str(goodput),
                str(samples.ratio(PARLEY, VLLM, lambda s: s.first(0.5))),
                str(samples.ratio(PARLEY, VLLM, lambda s: s.first(0.99))),
                "yes" if goodput.median >= TARGET else "no",
            ]
        )
    rounds = len(next(iter(results[0].by_way.values())))
    covers = results[0].ratio(PARLEY, VLLM, lambda s: s.tokens_per_second).coverage
    return "\n".join(
        [
            "\nMedians of the rounds",
            "",
            *aligned(rows),
            "",
            *aligned(ratios),
            f"  medians of {rounds} interleaved rounds; an interval holds the true one with"
            f" {100 * covers:.0f} %",
        ]
    )
