"""Failures in full: a sentence in Locust's table, every word of them in a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import orjson

MAX_WRITTEN = 1000
MAX_BODY_CHARACTERS = 20_000


class RequestFailed(Exception):
    """A request that the service did not answer as asked.

    Its text is the same for the same cause, so that the table groups it;
    `body` is what came, whole.
    """

    def __init__(self, summary: str, body: str = "", retry_after: float = 0.0) -> None:
        super().__init__(summary)
        self.body = body
        self.retry_after = retry_after


def from_problem(status: int, body: bytes | str, retry_after: str = "") -> RequestFailed:
    """Read a problem document, or whatever came in its place."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    try:
        seconds = float(retry_after)
    except ValueError:
        seconds = 0.0
    try:
        problem = orjson.loads(text)
    except orjson.JSONDecodeError:
        problem = None
    if not isinstance(problem, dict) or "code" not in problem:
        return RequestFailed(f"{status}: {text[:300]}", text, seconds)
    summary = f"{problem.get('status', status)} {problem['code']}: {problem.get('detail', '')}"
    for error in problem.get("errors") or []:
        summary += f" [{error.get('field')}: {error.get('message')}]"
    return RequestFailed(summary, text, seconds)


class FailureLog:
    """Appends failures to a file as JSON lines, a bounded number of them.

    Args:
        path: the file; several processes may share it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = 0

    def write(self, name: str, failure: BaseException, context: dict[str, Any]) -> None:
        """Append one failure."""
        if self._written >= MAX_WRITTEN:
            return
        self._written += 1
        line = orjson.dumps(
            {
                "at": time.time(),
                "request": name,
                "failure": f"{type(failure).__name__}: {failure}",
                "body": getattr(failure, "body", "")[:MAX_BODY_CHARACTERS],
                **context,
            }
        )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab", buffering=0) as file:
            file.write(line + b"\n")
