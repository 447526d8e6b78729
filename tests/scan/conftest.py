"""The tools that judge what the chart makes: HELM, PROMTOOL, or on the PATH."""

import os
import shutil

import pytest

from support.helm import Document, Render, render


def _tool(name: str) -> str:
    found = os.environ.get(name.upper()) or shutil.which(name)
    if not found:
        raise pytest.UsageError(f"no {name} on the PATH, and {name.upper()} does not name one")
    return found


@pytest.fixture(name="helm", scope="session")
def _helm() -> str:
    return _tool("helm")


@pytest.fixture(name="promtool", scope="session")
def _promtool() -> str:
    return _tool("promtool")


@pytest.fixture(name="render", scope="session")
def _render(helm: str, tmp_path_factory: pytest.TempPathFactory) -> Render:
    def with_values(values: Document) -> list[Document]:
        return render(helm, values, tmp_path_factory.mktemp("values"))

    return with_values
