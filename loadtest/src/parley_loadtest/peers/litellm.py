"""Parley beside LiteLLM's proxy: the same paced `sim` behind both, on the same cores.

Each way's processes, stores and engine included, run on the budget's cores and on no others;
the client has the rest. LiteLLM stands in front of the engine's OpenAI face, which sends a chunk
a step as OpenAI servers do; Parley's services in front of its gRPC, where what "coalescing" says
is Parley's own. Parley stores each chat as well.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from parley_loadtest.bench.cpu import CpuMeter
from parley_loadtest.bench.table import aligned
from parley_loadtest.peers.processes import free_port, on_cores, process, resident
from parley_loadtest.peers.rounds import PeerLoad, PeerSamples, measure_peers
from parley_loadtest.peers.ways import OpenAiWay, ParleyWay, TimedWay
from parley_loadtest.target import NO_DELAY, NoTarget, SimTimes, sim_stack

MODEL = "sim"
ENGINE, LITELLM, PARLEY = "engine", "litellm", "parley"
PACED = SimTimes(ttft=0.05, itl=0.02, concurrency=1024, answer_tokens=0)
START_SECONDS = 300.0
SETTINGS = {
    ("paced", "coalescing on"): PACED,
    ("paced", "coalescing off"): replace(PACED, coalesce=0.0),
    ("unpaced", "coalescing on"): NO_DELAY,
    ("unpaced", "coalescing off"): replace(NO_DELAY, coalesce=0.0),
}
_CONFIG = """\
model_list:
  - model_name: {model}
    litellm_params:
      model: openai/{model}
      api_base: http://127.0.0.1:{port}/v1
      api_key: none
litellm_settings:
  telemetry: false
  num_retries: 0
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One setting's samples, and what each side holds in memory (MiB) after them."""

    pacing: str
    coalescing: str
    samples: Sequence[PeerSamples]
    memory: Mapping[str, float]


def seconds_of(options: argparse.Namespace) -> float:
    """About how long it takes, starts included."""
    ways, loads = 3, 2
    each = options.rounds * ways * loads * (options.seconds + 1) + 60
    return float(each * len(chosen(options)))


def chosen(options: argparse.Namespace) -> list[tuple[str, str]]:
    """The settings asked for."""
    return [
        setting
        for setting in SETTINGS
        if options.only is None or options.only in (setting[0], setting[1].split()[-1])
    ]


def loads_of(options: argparse.Namespace) -> list[PeerLoad]:
    """Long streamed answers, and short whole ones."""
    return [
        PeerLoad("streamed", options.tokens, options.concurrency, options.seconds),
        PeerLoad("short", options.short, options.concurrency, options.seconds, streamed=False),
    ]


async def bench_litellm(options: argparse.Namespace) -> str:
    """Measure all settings; give the tables. Raises NoTarget."""
    program = options.peers / "bin" / "litellm"
    if not program.exists():
        raise NoTarget(f"LiteLLM is not in {options.peers}: `make bench-peers` installs it there")
    results = []
    for setting in chosen(options):
        print(f"{', '.join(setting)}: starting both on sim…", flush=True)
        results.append(await _measure(options, program, setting))
    version = await _version(options.peers)
    return f"\nLiteLLM {version}\n" + report(results)


async def _measure(
    options: argparse.Namespace, program: Path, setting: tuple[str, str]
) -> Measured:
    times = SETTINGS[setting]
    budget, client = split_cores(options.cores)
    async with AsyncExitStack() as exits:
        with on_cores(budget):
            stack = await exits.enter_async_context(
                sim_stack(times, model_id=MODEL, start_seconds=START_SECONDS)
            )
            by_step = replace(times, coalesce=0.0)
            peer = await exits.enter_async_context(_litellm(program, by_step, len(budget)))
        os.sched_setaffinity(0, client)
        parley = {name: pid for name in stack.names if (pid := stack.pid(name)) is not None}
        ways: Mapping[str, Callable[[], TimedWay]] = {
            ENGINE: lambda: OpenAiWay(peer.upstream_url, MODEL),
            LITELLM: lambda: OpenAiWay(peer.url, MODEL),
            PARLEY: lambda: ParleyWay(stack.url, cache=options.cache),
        }
        samples = await measure_peers(
            ways, loads_of(options), options.rounds, CpuMeter({**parley, **peer.pids})
        )
        memory = {PARLEY: resident(parley), LITELLM: resident(peer.pids)}
        return Measured(*setting, samples, memory)


@dataclass(frozen=True, slots=True)
class _Peer:
    url: str
    upstream_url: str
    pids: Mapping[str, int]


@asynccontextmanager
async def _litellm(program: Path, times: SimTimes, workers: int) -> AsyncIterator[_Peer]:
    """Run the proxy in front of the engine's OpenAI face."""
    upstream, port = free_port(), free_port()
    with await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="parley-peers-") as folder:
        config = Path(folder) / "litellm.yaml"
        await asyncio.to_thread(config.write_text, _CONFIG.format(model=MODEL, port=upstream))
        engine = {
            **times.environment,
            "PARLEY_INFERENCE_ENGINE": "sim",
            "PARLEY_INFERENCE_MODEL_ID": MODEL,
        }
        alone = {
            # Without keys, as the platform beside it; and no look outside of this machine.
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "NO_PROXY": "127.0.0.1",
        }
        async with (
            process(
                [sys.executable, "-m", "parley_loadtest.peers.upstream", str(upstream)],
                port=upstream, env=engine, log=Path(folder) / "upstream.log", seconds=START_SECONDS,
            ) as upstream_pid,
            process(
                [
                    str(program), "--config", str(config), "--host", "127.0.0.1",
                    "--port", str(port), "--num_workers", str(workers),
                ],
                port=port, env=alone, log=Path(folder) / "litellm.log", seconds=START_SECONDS,
            ) as pid,
        ):  # fmt: skip
            yield _Peer(
                f"http://127.0.0.1:{port}",
                f"http://127.0.0.1:{upstream}",
                {"litellm": pid, "upstream": upstream_pid},
            )


def split_cores(budget: int) -> tuple[list[int], list[int]]:
    """Cores for what is measured, and the rest for the client; one core serves both."""
    cores = sorted(os.sched_getaffinity(0))
    budget = max(1, min(budget, len(cores) - 1))
    return cores[:budget], cores[budget:] or cores


async def _version(peers: Path) -> str:
    code = "import importlib.metadata as m; print(m.version('litellm'))"
    asking = await asyncio.create_subprocess_exec(
        str(peers / "bin" / "python"), "-c", code, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await asking.communicate()
    return said.decode().strip()


def report(results: Sequence[Measured]) -> str:
    """The figures, then what they come to as ratios."""
    rows = [
        [
            "pacing", "coalescing", "load", "way", "answers/s", "tokens/s", "TTFT p50 ms",
            "p99 ms", "added p50", "added p99", "RSS MiB",
        ]
    ]  # fmt: skip
    ratios = [["Parley / LiteLLM", "load", "what", "median (interval)"]]
    for one in results:
        for samples in one.samples:
            rows += [_figures(one, samples, way) for way in samples.by_way]
            ratios += _ratios(one, samples)
    memory = [one.memory[PARLEY] / one.memory[LITELLM] for one in results if one.memory[LITELLM]]
    lines = ["Medians of the rounds; added: beyond the engine's OpenAI face, called directly", ""]
    lines += [*aligned(rows), "", *aligned(ratios)]
    if memory:
        lines.append(f"  RSS of all Parley's processes and stores / LiteLLM's: {max(memory):.2f}")
    return "\n".join(lines)


def _figures(one: Measured, samples: PeerSamples, way: str) -> list[str]:
    first, base = _first(samples, way), _first(samples, ENGINE)
    return [
        one.pacing,
        one.coalescing.split()[-1],
        samples.load.name,
        way,
        f"{samples.median(way, lambda s: s.answers_per_second):.1f}",
        f"{samples.median(way, lambda s: s.tokens_per_second):.0f}",
        *(f"{1000 * seconds:.1f}" for seconds in first),
        *(f"{1000 * (own - engine):.1f}" for own, engine in zip(first, base, strict=True)),
        f"{one.memory[way]:.0f}" if way in one.memory else "-",
    ]


def _first(samples: PeerSamples, way: str) -> tuple[float, float]:
    """Seconds to the first text: the median answer, and the 99th of a hundred."""
    return (
        samples.median(way, lambda sample: sample.first(0.5)),
        samples.median(way, lambda sample: sample.first(0.99)),
    )


def _ratios(one: Measured, samples: PeerSamples) -> list[list[str]]:
    name = f"{one.pacing}, {one.coalescing}"
    tokens = samples.ratio(PARLEY, LITELLM, lambda s: s.tokens_per_second)
    first = samples.ratio(PARLEY, LITELLM, lambda s: s.first(0.5))
    late = samples.ratio(PARLEY, LITELLM, lambda s: s.first(0.99))
    what = "streamed tokens/s" if samples.load.streamed else "requests/s"
    rows = [[name, samples.load.name, what, str(tokens)]]
    if samples.load.streamed:
        rows.append([name, samples.load.name, "TTFT p50", str(first)])
        rows.append([name, samples.load.name, "TTFT p99", str(late)])
    return rows
