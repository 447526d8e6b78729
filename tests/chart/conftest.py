"""HELM names the Helm to render with, else it is looked for on the PATH."""

import os
import shutil

import pytest

from support.helm import Document, Render, render


@pytest.fixture(name="helm", scope="session")
def _helm() -> str:
    found = os.environ.get("HELM") or shutil.which("helm")
    if not found:
        raise pytest.UsageError("no helm on the PATH, and HELM does not name one")
    return found


@pytest.fixture(name="render", scope="session")
def _render(helm: str, tmp_path_factory: pytest.TempPathFactory) -> Render:
    def with_values(values: Document) -> list[Document]:
        return render(helm, values, tmp_path_factory.mktemp("values"))

    return with_values
