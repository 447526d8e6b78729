from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from parley_devstack.environments import (
    Environment,
    development,
    is_current,
    make,
    uv_requirement,
)
from parley_devstack.errors import SetupError
from parley_devstack.paths import Paths, checkout

LOCK = """\
rich==14.0.0 \\
    --hash=sha256:aa
uv==0.13.8 \\
    --hash=sha256:bb \\
    --hash=sha256:cc
    # via -r requirements/dev.in
uvicorn==0.54.0 \\
    --hash=sha256:dd
"""


@dataclass
class FakeRunner:
    """Notes the commands and leaves behind what they would; fails where it is told to."""

    paths: Paths
    fail_on: str = ""
    output: str = ""
    commands: list[str] = field(default_factory=list)

    def __call__(self, title: str, command: Sequence[str], log: Path) -> int:
        self.commands.append(" ".join(command))
        log.write_text(self.output)
        if self.fail_on and self.fail_on in title:
            return 2
        for file in (self.paths.home / "uv" / "bin" / "uv", self.paths.venv / "bin" / "python"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        return 0


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "dev.txt").write_text(LOCK)
    (tmp_path / "proto").mkdir()
    (tmp_path / "proto" / "pyproject.toml").write_text("[project]\n")
    return Paths(root=tmp_path, home=tmp_path / ".parley")


@pytest.fixture
def environment(paths: Paths) -> Environment:
    lock = paths.root / "requirements" / "dev.txt"
    return Environment("development environment", paths.venv, lock, ("proto",))


def test_uv_is_the_one_the_lock_pins(paths: Paths) -> None:
    requirement = uv_requirement(paths.root / "requirements" / "dev.txt")
    assert requirement == "uv==0.13.8 \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\n"
    assert uv_requirement(checkout().root / "requirements" / "dev.txt").startswith("uv==")


def test_an_environment_is_made_once_by_hash_and_is_current_then(
    paths: Paths, environment: Environment
) -> None:
    run = FakeRunner(paths)
    assert not is_current(environment, paths)
    make(environment, paths, run)
    assert is_current(environment, paths)
    assert any("pip sync" in c and "--require-hashes" in c for c in run.commands)
    assert run.commands[-1].endswith(f"--no-build-isolation -e {paths.root / 'proto'}")


@pytest.mark.parametrize("changed", ["requirements/dev.txt", "proto/pyproject.toml"])
def test_a_change_of_lock_or_project_makes_it_again(
    paths: Paths, environment: Environment, changed: str
) -> None:
    make(environment, paths, FakeRunner(paths))
    (paths.root / changed).write_text(LOCK + "# changed\n")
    assert not is_current(environment, paths)
    run = FakeRunner(paths)
    make(environment, paths, run)
    assert len(run.commands) == 2  # uv and the environment itself are there
    assert is_current(environment, paths)


def test_a_failed_step_says_where_the_log_is_and_leaves_nothing_that_looks_finished(
    paths: Paths, environment: Environment
) -> None:
    run = FakeRunner(paths, fail_on="download", output="error: hash mismatch for rich\n")
    with pytest.raises(SetupError) as caught:
        make(environment, paths, run)
    assert "hash mismatch for rich" in str(caught.value)
    assert "setup-venv.log" in str(caught.value)
    assert not caught.value.advice
    assert not is_current(environment, paths)


@pytest.mark.parametrize(
    "line",
    [
        "error: dns error: failed to lookup address information",
        "WARNING: Retrying after connection broken by NewConnectionError",
        "error: client error (Connect): tcp connect error: Network is unreachable",
    ],
)
def test_no_network_is_told_with_what_to_do(
    paths: Paths, environment: Environment, line: str
) -> None:
    with pytest.raises(SetupError) as caught:
        make(environment, paths, FakeRunner(paths, fail_on="uv: install", output=line))
    assert "check the network or the proxy" in caught.value.advice
    assert not is_current(environment, paths)


def test_a_missing_lock_is_told(paths: Paths) -> None:
    lock = paths.root / "requirements" / "inference-cpu.txt"
    with pytest.raises(SetupError, match="make lock"):
        make(Environment("inference", paths.inference_venv, lock, ()), paths, FakeRunner(paths))


def test_every_distribution_of_the_tree_is_in_the_development_environment() -> None:
    paths = checkout()
    found = {
        str(file.parent.relative_to(paths.root))
        for pattern in ("proto", "services/*", "loadtest", "tools/*")
        for file in paths.root.glob(f"{pattern}/pyproject.toml")
    }
    assert set(development(paths).projects) == found
