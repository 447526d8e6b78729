"""The commit whose services run beside today's: `make test-mixed BASE=COMMIT`."""

from __future__ import annotations

import os

import pytest

from support.versions import Version, version_of


@pytest.fixture(name="base", scope="session")
def _base(tmp_path_factory: pytest.TempPathFactory) -> Version:
    revision = os.environ.get("PARLEY_TEST_BASE")
    if not revision:
        raise pytest.UsageError("PARLEY_TEST_BASE names no commit: make test-mixed BASE=COMMIT")
    return version_of(revision, tmp_path_factory.mktemp("base"))
