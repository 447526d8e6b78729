"""What a load test can be told, on Locust's command line or in the environment.

Each option has a variable: `--hit-share` is `LOADTEST_HIT_SHARE`. Workers get
the master's values.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parley_loadtest.prompts import Script, built_in_scripts, read_scripts
from parley_loadtest.thresholds import Threshold, parse_thresholds


@dataclass(frozen=True, slots=True)
class PersonOptions:
    """How people behave. Times are seconds, shares 0 to 1."""

    api_key: str
    send_user: bool
    scripts: list[Script]
    hit_share: float
    stream_share: float
    leave_share: float
    delete_share: float
    turns: float
    think: float
    max_tokens: int
    model: str
    timeout: float
    seed: int


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def add_options(parser: Any) -> None:
    """Add the load test's options to Locust's parser."""
    group = parser.add_argument_group("Parley")

    def add(flag: str, **settings: Any) -> None:
        name = flag.strip("-").replace("-", "_").upper()
        group.add_argument(flag, env_var=f"LOADTEST_{name}", **settings)

    # On the parser itself: only there Locust keeps a secret out of its web page.
    parser.add_argument(
        "--api-key",
        env_var="LOADTEST_API_KEY",
        default="",
        is_secret=True,
        help="sent as a bearer token",
    )
    add(
        "--no-user-id",
        action="store_true",
        help="name no user: the key is fixed to one",
    )
    add("--prompts", default="", help="file of prompts: a line each, or JSON lines")
    add("--hit-share", type=_share, default=0.0, help="chats that begin with an answered question")
    add("--stream-share", type=_share, default=0.8, help="answers asked for as a stream")
    add("--leave-share", type=_share, default=0.05, help="streams that people leave in the middle")
    add("--delete-share", type=_share, default=0.2, help="chats that are deleted at their end")
    add("--turns", type=_positive, default=3.0, help="questions of a chat, on average")
    add("--think", type=float, default=2.0, help="seconds between two questions, on average")
    add("--max-tokens", type=int, default=0, help="of an answer; 0: the service's default")
    add("--model", default="", help="model of new chats; empty: the service's default")
    add("--read-timeout", type=_positive, default=120.0, help="seconds without a byte: a failure")
    add("--thresholds", default="", help="what must be reached, as ttft.p95<2s,errors<1%%")
    add("--failures-file", default="", help="JSON lines of failures in full")
    add("--seed", type=int, default=0, help="of the people's choices; 0: another each time")


def person_options(parsed: Any) -> PersonOptions:
    """Read the options.

    Raises:
        PromptFileError: the prompt file cannot be used.
    """
    scripts = read_scripts(Path(parsed.prompts)) if parsed.prompts else built_in_scripts()
    return PersonOptions(
        api_key=parsed.api_key,
        send_user=not parsed.no_user_id,
        scripts=scripts,
        hit_share=parsed.hit_share,
        stream_share=parsed.stream_share,
        leave_share=parsed.leave_share,
        delete_share=parsed.delete_share,
        turns=parsed.turns,
        think=max(0.0, parsed.think),
        max_tokens=parsed.max_tokens,
        model=parsed.model,
        timeout=parsed.read_timeout,
        seed=parsed.seed,
    )


def thresholds(parsed: Any) -> list[Threshold]:
    """Read the thresholds.

    Raises:
        ThresholdError: one cannot be read.
    """
    return parse_thresholds(parsed.thresholds)
