"""Generated documents that are committed: written by a command, checked for drift by a test."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def main_for(path: Path, render: Callable[[], str], arguments: Sequence[str]) -> int:
    """Write ``path`` (under the working directory), or check it under ``--check``.

    Returns the exit code: 0, 1 where the file differs, 2 for other arguments.
    """
    if list(arguments) not in ([], ["--check"]):
        sys.stderr.write("usage: [--check]\n")
        return 2
    text = render()
    if arguments:
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return 0
        sys.stderr.write(f"{path} is out of date: run this command without --check\n")
        return 1
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return 0
