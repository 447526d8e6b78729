"""Renders the chart with a real Helm."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from chart_schema import CHART

# The oldest that the chart says it runs on.
KUBERNETES = "1.31.0"

Document = dict[str, Any]
Render = Callable[[Document], list[Document]]


class Refused(Exception):
    """Helm's own words."""


def render(helm: str, values: Document, folder: Path) -> list[Document]:
    """Render with values; the documents. Raises Refused."""
    given = folder / "values.json"
    given.write_text(json.dumps(values), "utf-8")
    done = subprocess.run(
        [helm, "template", "try", str(CHART), "--kube-version", KUBERNETES, "-f", str(given)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise Refused(done.stderr)
    return [document for document in yaml.safe_load_all(done.stdout) if document]
