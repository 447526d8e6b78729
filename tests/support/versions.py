"""The services as they were at another commit, beside those of this checkout.

What they are installed with is this checkout's: the commit's own sources are put before it.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from parley_devstack.paths import checkout

SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Version:
    """The sources of a commit, in a folder of their own."""

    commit: str
    root: Path

    def environment(self, service: str) -> dict[str, str]:
        """The variables that have a process of a service run this version."""
        folders = (f"services/{service}/src", "services/kit/src", "proto/gen")
        return {"PYTHONPATH": os.pathsep.join(str(self.root / folder) for folder in folders)}


def version_of(revision: str, folder: Path) -> Version:
    """Unpack the services of a commit. Raises AssertionError where there is no such commit."""
    commit = _git("rev-parse", "--short", f"{revision}^{{commit}}").decode().strip()
    packed = _git("archive", commit, "services", "proto/gen")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return Version(commit, folder)


def source_of(service: str, environment: Mapping[str, str]) -> Path:
    """Where a process with these variables has a service's code and its contracts from."""
    module = f"parley_{service}"
    asked = (
        f"import {module}, parley_kit, parley.session.v1 as p, os; files = ({module}.__file__, "
        "parley_kit.__file__, next(iter(p.__path__))); print(os.path.commonpath(files))"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked],
        env=dict(environment),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    return Path(done.stdout.strip())


def _git(*arguments: str) -> bytes:
    done = subprocess.run(
        ["git", "-C", str(checkout().root), *arguments],
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"git {arguments[0]}: {done.stderr.decode().strip()}"
    return done.stdout
