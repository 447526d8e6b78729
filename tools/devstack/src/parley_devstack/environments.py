"""Makes the virtual environments from the locks, and only when a lock has changed.

Only the standard library: the development environment is made by the bare Python.
uv itself comes from its pinned entry in `requirements/dev.txt`, into a small environment
under `.parley/`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from parley_devstack.errors import SetupError
from parley_devstack.paths import Paths

STAMP = ".parley-stamp.json"
STEP_SECONDS = 3600.0
TAIL_LINES = 15
NETWORK_SIGNS = re.compile(
    r"dns error|resolve|connect|network|timed? ?out|certificate|proxy|unreachable|client error"
    r"|from versions: none",
    re.IGNORECASE,
)
OFFLINE_ADVICE = (
    "No package registry could be reached: check the network or the proxy (HTTPS_PROXY), "
    "or name a mirror (PIP_INDEX_URL and UV_DEFAULT_INDEX), and run it again; "
    "what was downloaded is kept."
)

# Runs a command to its end and shows that it is alive: (title, command, log) → exit code.
Runner = Callable[[str, Sequence[str], Path], int]


@dataclass(frozen=True, slots=True)
class Environment:
    """One virtual environment: where it is, its lock, and what of this tree is in it."""

    title: str
    folder: Path
    lock: Path
    projects: tuple[str, ...]

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.folder / "bin" / "python"


def development(paths: Paths) -> Environment:
    """The environment of all services but vLLM, of the tools and of the tests."""
    return Environment(
        title="development environment",
        folder=paths.venv,
        lock=paths.root / "requirements" / "dev.txt",
        projects=(
            "proto",
            *(f"services/{name}" for name in ("kit", "gateway", "session", "cache", "inference")),
            "loadtest",
            "tools/devstack",
        ),
    )


def inference(paths: Paths, *, gpu: bool) -> Environment:
    """The environment of the vLLM engine, on CPU or GPU."""
    kind = "gpu" if gpu else "cpu"
    return Environment(
        title=f"inference environment (vLLM, {kind.upper()})",
        folder=paths.inference_venv,
        lock=paths.root / "requirements" / f"inference-{kind}.txt",
        projects=("proto", "services/kit", "services/inference"),
    )


def is_current(environment: Environment, paths: Paths) -> bool:
    """Says whether the environment was made from the lock and the projects as they are."""
    try:
        stamp = json.loads((environment.folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(stamp == _stamp(environment, paths)) and environment.python.exists()


def make(environment: Environment, paths: Paths, run: Runner) -> None:
    """Brings the environment to what its lock says. Raises SetupError."""
    if not environment.lock.is_file():
        raise SetupError(f"{environment.lock} is missing.", "Restore it, or make it: make lock.")
    uv = ensure_uv(paths, run)
    stamp = environment.folder / STAMP
    stamp.unlink(missing_ok=True)  # a run that is cut off must not look finished
    log = paths.logs / f"setup-{environment.folder.name.strip('.')}.log"
    title = environment.title
    if not environment.python.exists():
        _step(
            run,
            f"{title}: create",
            [*uv, "venv", "--quiet", "--clear", "--python", sys.executable, environment.folder],
            log,
        )
    target = ("--python", environment.python)
    _step(
        run,
        f"{title}: download and install",
        [*uv, "pip", "sync", *target, "--require-hashes", environment.lock],
        log,
    )
    editable: list[str | Path] = [
        part for project in environment.projects for part in ("-e", paths.root / project)
    ]
    if editable:
        _step(
            run,
            f"{title}: this tree",
            [*uv, "pip", "install", *target, "--no-deps", "--no-build-isolation", *editable],
            log,
        )
    stamp.write_text(json.dumps(_stamp(environment, paths)), encoding="utf-8")


def ensure_uv(paths: Paths, run: Runner) -> list[str]:
    """Returns the command of the pinned uv, installing it where it is not."""
    lock = uv_requirement(paths.root / "requirements" / "dev.txt")
    folder = paths.home / "uv"
    stamp = folder / STAMP
    uv = folder / "bin" / "uv"
    digest = hashlib.sha256(lock.encode()).hexdigest()
    if not (uv.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == digest):
        log = paths.logs / "setup-uv.log"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _step(run, "uv: create its environment", [sys.executable, "-m", "venv", folder], log)
        requirement = folder / "requirements.txt"
        requirement.write_text(lock, encoding="utf-8")
        pip: list[str | Path] = [
            folder / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
        ]
        _step(run, "uv: install", [*pip, "--require-hashes", "-r", requirement], log)
        stamp.write_text(digest, encoding="utf-8")
    return [str(uv)]


def uv_requirement(lock: Path) -> str:
    """Returns uv's pinned and hashed entry of a lock. Raises SetupError without one."""
    found = re.search(
        r"^uv==[^\n]*\\\n(?:    --hash=\S+(?: \\)?\n)+", lock.read_text("utf-8"), re.MULTILINE
    )
    if found is None:
        raise SetupError(f"{lock} pins no uv.", "Restore it from version control.")
    return found[0]


def _step(run: Runner, title: str, command: Sequence[str | Path], log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        code = run(title, [str(part) for part in command], log)
    except subprocess.TimeoutExpired as error:
        raise SetupError(
            f"{title} took longer than {error.timeout:g} s.", OFFLINE_ADVICE
        ) from error
    if code != 0:
        text = tail_of(log)
        advice = OFFLINE_ADVICE if NETWORK_SIGNS.search(text) else ""
        raise SetupError(f"{title} failed (exit code {code}), see {log}:\n{text}\n", advice)


def tail_of(log: Path) -> str:
    """Returns the last lines of a set-up log, indented."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
    return "\n".join(f"  {line}" for line in lines)


def _stamp(environment: Environment, paths: Paths) -> dict[str, str]:
    files = [environment.lock, *(paths.root / p / "pyproject.toml" for p in environment.projects)]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    # Editable installs hold absolute paths: a checkout that was moved needs new ones.
    return {"lock": environment.lock.name, "sha256": digest.hexdigest(), "root": str(paths.root)}


def child_environment() -> dict[str, str]:
    """Returns the environment for uv and pip, free of a virtual environment that is active."""
    dropped = {"VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH", "CONDA_PREFIX"}
    # Registries that answer slowly are not registries that are away.
    patient = {"UV_HTTP_TIMEOUT": "180", "PIP_DEFAULT_TIMEOUT": "180"}
    return {**patient, **{k: v for k, v in os.environ.items() if k not in dropped}}
