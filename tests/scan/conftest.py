"""The tools that judge what the chart makes: HELM, PROMTOOL, KUBE_SCORE, or on the PATH."""

import os
import shutil

import pytest

from support.helm import Document, Render, render


def _tool(name: str) -> str:
    variable = name.upper().replace("-", "_")
    found = os.environ.get(variable) or shutil.which(name)
    if not found:
        raise pytest.UsageError(f"no {name} on the PATH, and {variable} does not name one")
    return found


@pytest.fixture(name="helm", scope="session")
def _helm() -> str:
    return _tool("helm")


@pytest.fixture(name="promtool", scope="session")
def _promtool() -> str:
    return _tool("promtool")


@pytest.fixture(name="kube_score", scope="session")
def _kube_score() -> str:
    return _tool("kube-score")


@pytest.fixture(name="render", scope="session")
def _render(helm: str, tmp_path_factory: pytest.TempPathFactory) -> Render:
    def with_values(values: Document) -> list[Document]:
        return render(helm, values, tmp_path_factory.mktemp("values"))

    return with_values
