"""Sampled stacks, as py-spy writes them: read, and summed up."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_FRAME = re.compile(r"(?P<function>.*) \((?P<file>.*?)(?::\d+)?\)$")
OURS = "parley_"


@dataclass(frozen=True, slots=True)
class Frame:
    """A function, and the file that it is in, from the package on."""

    function: str
    file: str

    @property
    def library(self) -> str:
        """The package, two steps deep where it is one of ours."""
        parts = self.file.split("/")
        if parts[0].startswith(OURS):
            return "/".join(parts[:2]).removesuffix(".py")
        # Modules of the standard library stand alone or in a package: one name is enough.
        return parts[0].removesuffix(".py")


@dataclass(frozen=True, slots=True)
class Summary:
    """Samples of one process: all, by innermost library, by function of ours anywhere."""

    samples: int
    by_library: Mapping[str, int]
    by_function: Mapping[str, int]


def parse(line: str) -> tuple[list[Frame], int]:
    """Read one line, outermost frame first: `function (file:line);… count`."""
    stack, _, count = line.rpartition(" ")
    frames = []
    for text in stack.split(";"):
        match = _FRAME.match(text)
        if match is not None:
            frames.append(Frame(match["function"], match["file"]))
    return frames, int(count)


def summed(lines: Iterable[str]) -> Summary:
    """Sum stacks up."""
    samples = 0
    libraries: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for line in lines:
        frames, count = parse(line)
        if not frames:
            continue
        samples += count
        libraries[frames[-1].library] += count
        for name in {f"{f.file}:{f.function}" for f in frames if f.file.startswith(OURS)}:
            functions[name] += count
    return Summary(samples, libraries, functions)
