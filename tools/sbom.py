"""Says what an image is installed from: `python tools/sbom.py LOCK`, which `make sbom` calls.

A lock holds for every platform; what an image on Linux with CPython 3.11 does not install is
left out. The rest, hashes included, goes to stdout, for cyclonedx-py to make a bill of.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.markers import Marker

# A requirement with its hashes: one line, and what it continues on.
REQUIREMENT = re.compile(r"^[A-Za-z0-9](?:.*\\\n)*.*$", re.MULTILINE)


def environment(machine: str) -> dict[str, str]:
    """Return the variables of markers in an image for a machine ("x86_64", "aarch64")."""
    return {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": "3.11.0",
        "python_version": "3.11",
        "sys_platform": "linux",
    }


def installed(lock: str, machine: str) -> Iterator[str]:
    """Yield the requirements of a lock that an image installs, each with its hashes."""
    for found in REQUIREMENT.finditer(lock):
        pinned, _, marker = found[0].partition("\\")[0].partition(";")
        if "==" not in pinned:
            raise ValueError(f"not pinned: {pinned}")
        if not marker.strip() or Marker(marker.strip()).evaluate(environment(machine)):
            yield found[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what of a lock an image installs."""
    parser = argparse.ArgumentParser(description="What of a lock an image installs.")
    parser.add_argument("lock", type=Path)
    parser.add_argument("--machine", default="x86_64")
    given = parser.parse_args(arguments)
    for requirement in installed(given.lock.read_text("utf-8"), given.machine):
        print(requirement)


if __name__ == "__main__":
    main()
