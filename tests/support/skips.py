"""A skipped test fails the run, unless `tests/skips.txt` names it, with its reason.

Active where `PARLEY_FAIL_ON_SKIP` is set, as CI does; elsewhere skips are only
listed. Load it as a pytest plugin.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

ALLOWED = Path(__file__).parent.parent / "skips.txt"
# What a worker process of pytest-xdist calls it.
NOTED = "parley skipped"


def read_allowed(text: str) -> dict[str, str]:
    """Parse lines of `<test id> # <beginning of the reason>`; comments begin with `#`."""
    allowed = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            test, separator, reason = line.partition(" # ")
            if not separator or not reason.strip():
                message = f"{ALLOWED.name}: no reason given for {test.strip()!r}"
                raise ValueError(message)
            allowed[test.strip()] = reason.strip()
    return allowed


class SkipGuard:
    """Collects what was skipped, and judges it at the end of the run."""

    def __init__(self, allowed: dict[str, str], *, fail: bool) -> None:
        self._allowed = allowed
        self._fail = fail
        self.skipped: dict[str, str] = {}

    def unexpected(self) -> list[str]:
        """Ids that were skipped and that the list does not name, or for another reason."""
        return [test for test in self.skipped if not self._is_allowed(test)]

    def _is_allowed(self, test: str) -> bool:
        reason = self.skipped[test].removeprefix("Skipped: ")
        return test in self._allowed and reason.startswith(self._allowed[test])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a skipped test and why."""
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            self.skipped[report.nodeid] = str(reason)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that skipped itself while it was collected."""
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            self.skipped[report.nodeid] = str(reason)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker process has noted: a module's skip is told nowhere else."""
        self.skipped |= getattr(node, "workeroutput", {}).get(NOTED, {})

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run that passed only by skipping; a worker process tells its controller."""
        told = getattr(session.config, "workeroutput", None)
        if told is not None:
            told[NOTED] = self.skipped
        elif self._fail and self.unexpected() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print what was skipped, and what of it is not on the list."""
        for test, reason in self.skipped.items():
            listed = "as listed" if self._is_allowed(test) else "not on the list"
            terminalreporter.write_line(f"skipped, {listed}: {test}: {reason}")


def pytest_configure(config: pytest.Config) -> None:
    """Register the guard."""
    guard = SkipGuard(
        read_allowed(ALLOWED.read_text("utf-8")), fail=bool(os.environ.get("PARLEY_FAIL_ON_SKIP"))
    )
    config.pluginmanager.register(guard, "parley-skip-guard")
