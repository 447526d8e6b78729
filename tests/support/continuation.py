"""How often a greedy answer of vLLM that was cut and continued equals the undisturbed one.

    PYTHONPATH=tests python -m support.continuation [--tokens 48] [--cuts 1,8,16,32]

One engine with the small model. Each prompt is answered undisturbed, alone. Then the same
answer is continued from its first tokens, as after the loss of an engine: alone, and beside
the continuations of all others, in one batch. Cut after 0 tokens it is merely asked again:
what differs there is no matter of continuing. Nothing is promised of the result, so nothing
fails by it; bytes that are lost, doubled or out of place do.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from parley_devstack.paths import checkout
from support.inference import Answer, Client, connect
from support.vllm import START_SECONDS, ask, vllm_process

REPORT = "continuation.md"
ANSWER_SECONDS = 300.0
PROMPTS = (
    "What is the capital of France?",
    "Count from one to twenty, as words, separated by commas.",
    "Write a haiku about the sea.",
    "Explain in three sentences why the sky is blue.",
    "Write a Python function that reverses a string.",
    "List five fruits, each with its colour.",
    "Tell the story of a lighthouse keeper who finds a letter.",
    "Write the word 東京 and the sign 🙂 three times each.",
    "Translate 'good morning, my friends' into French, Spanish and German.",
    "What is the difference between a list and a tuple?",
    "Give three reasons to learn to swim.",
    "Describe how bread is baked, step by step.",
)


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """An answer as it came, in the pieces in which a log would have it."""

    prompt: str
    answer: Answer

    def cut(self, tokens: int) -> tuple[str, list[int]]:
        """Return what a taker has of it: whole pieces, of so many tokens or a few more."""
        text, known = "", list[int]()
        for chunk in self.answer.chunks:
            if len(known) >= tokens:
                break
            text += chunk.text
            known += chunk.token_ids
        return text, known


@dataclass(frozen=True, slots=True)
class Continued:
    """One continuation. `same`: tokens after the cut that are as they were, of `rest`."""

    equal: bool
    same: int
    rest: int


@dataclass(frozen=True, slots=True)
class Row:
    """All prompts, cut after about so many tokens."""

    cut: int
    alone: Sequence[Continued]
    together: Sequence[Continued]


async def continued(client: Client, whole: Undisturbed, cut: int, tokens: int) -> Continued | None:
    """Continue an answer. None: it had ended by then."""
    text, known = whole.cut(cut)
    rest = whole.answer.token_ids[len(known) :]
    if not rest:
        return None
    request = ask(whole.prompt, max_tokens=tokens, generated_token_ids=known)
    answer = await client.generate(request, timeout=ANSWER_SECONDS)
    offset = answer.chunks[0].offset if answer.chunks else len(text.encode())
    if offset != len(text.encode()):
        raise AssertionError(f"continued at byte {offset}, not {len(text.encode())}")
    same = next(
        (n for n, pair in enumerate(zip(rest, answer.token_ids, strict=False)) if len({*pair}) > 1),
        min(len(rest), len(answer.token_ids)),
    )
    return Continued(text + answer.text == whole.answer.text, same, len(rest))


async def compare(client: Client, tokens: int, cuts: Sequence[int]) -> list[Row]:
    """Answer every prompt undisturbed, then continue it from every cut."""
    wholes = [
        Undisturbed(
            prompt, await client.generate(ask(prompt, max_tokens=tokens), timeout=ANSWER_SECONDS)
        )
        for prompt in PROMPTS
    ]
    rows = []
    for cut in (0, *cuts):
        alone = [await continued(client, whole, cut, tokens) for whole in wholes]
        together = await asyncio.gather(*(continued(client, each, cut, tokens) for each in wholes))
        rows.append(Row(cut, _present(alone), _present(together)))
    return rows


def markdown(rows: Sequence[Row]) -> str:
    """The table as a page."""
    lines = [
        "# Greedy answers of vLLM, continued",
        "",
        "| continued after at least | equal, alone | equal, in one batch | tokens alike, alone | in one batch |",  # noqa: E501
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        after = f"{row.cut} tokens" if row.cut else "(asked again)"
        ways = (row.alone, row.together)
        equal = [f"{sum(each.equal for each in way)} of {len(way)}" for way in ways]
        lines.append(f"| {' | '.join([after, *equal, *map(_alike, ways)])} |")
    return "\n".join([*lines, ""])


def _alike(way: Sequence[Continued]) -> str:
    """The share of an answer's rest up to the first other token: mean."""
    return f"{statistics.mean(each.same / each.rest for each in way):.0%}" if way else ""


def _present(found: Sequence[Continued | None]) -> list[Continued]:
    return [each for each in found if each is not None]


async def report(tokens: int, cuts: Sequence[int]) -> str:
    """Start an engine and compare."""
    with tempfile.TemporaryDirectory(prefix="parley-continuation-") as folder:
        process = vllm_process(Path(folder))
        try:
            await process.start(START_SECONDS)
            async with connect(process.port, process.admin_port) as client:
                return markdown(await compare(client, tokens, cuts))
        finally:
            await process.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table and leave it in reports."""
    parser = argparse.ArgumentParser(prog="support.continuation")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--cuts", default="1,8,16,32")
    options = parser.parse_args(argv)
    page = asyncio.run(report(options.tokens, [int(cut) for cut in options.cuts.split(",")]))
    path = checkout().root / "reports" / REPORT
    path.parent.mkdir(exist_ok=True)
    path.write_text(page)
    sys.stdout.write(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
