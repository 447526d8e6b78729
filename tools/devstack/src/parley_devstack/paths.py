"""Where things are in a checkout.

Everything the devstack makes lies under `.parley/` (PARLEY_HOME moves it) and the
two virtual environments: removing them leaves a fresh clone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Paths:
    """The folders and files of one checkout."""

    root: Path
    home: Path

    @property
    def jars(self) -> Path:
        """The Java parts of the MongoDB stand-in."""
        return self.home / "java"

    @property
    def models(self) -> Path:
        """Converted models, one folder each."""
        return self.home / "models"

    @property
    def downloads(self) -> Path:
        """Files fetched on the way to something else."""
        return self.home / "downloads"

    @property
    def data(self) -> Path:
        """What the stores of `make run` keep."""
        return self.home / "data"

    @property
    def logs(self) -> Path:
        """One log file a process."""
        return self.home / "logs"

    @property
    def stack_file(self) -> Path:
        """The processes of the running stack."""
        return self.home / "stack.json"

    @property
    def venv(self) -> Path:
        """The development environment."""
        return self.root / ".venv"

    @property
    def inference_venv(self) -> Path:
        """The environment that holds vLLM."""
        return self.root / ".venv-inference"


def checkout(root: Path | None = None) -> Paths:
    """Returns the paths of the checkout that this file belongs to, or of `root`."""
    found = (root or Path(__file__).resolve().parents[4]).resolve()
    home = os.environ.get("PARLEY_HOME", "")
    return Paths(root=found, home=(found / home if home else found / ".parley").resolve())
