"""Lines for the end of a run, from whichever process a test ran in."""

from __future__ import annotations

import pytest

TOLD = "parley told"


def tell(item: pytest.Item, line: str) -> None:
    """Have a line printed at the end of the run, once."""
    item.user_properties.append((TOLD, line))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was told."""
    reports = (report for kind in terminalreporter.stats.values() for report in kind)
    lines = {
        str(value)
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == TOLD
    }
    for line in sorted(lines):
        terminalreporter.write_line(line)
