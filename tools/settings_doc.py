"""Writes docs/settings.md from the services' settings classes.

`python tools/settings_doc.py` writes it, `--check` fails when it is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic_settings import BaseSettings

from parley_cache.config import CacheSettings
from parley_gateway.config import GatewaySettings
from parley_inference.config import Settings as InferenceSettings
from parley_kit.config import settings_table
from parley_session.config import SessionSettings

TARGET = Path(__file__).parent.parent / "docs" / "settings.md"
SERVICES: dict[str, type[BaseSettings]] = {
    "gateway": GatewaySettings,
    "session": SessionSettings,
    "cache": CacheSettings,
    "inference": InferenceSettings,
}
HEAD = """# Settings

Every service reads its settings from the environment. A value that is out of bounds, and a
variable that no setting has, end the start with a sentence and exit code 2; values are never
printed. Written by `make docs` from the code.
"""


def render() -> str:
    """Return the page."""
    parts = [HEAD]
    parts += [f"## {name}\n\n{settings_table(cls)}" for name, cls in SERVICES.items()]
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Write the page, or compare it; the exit code."""
    if "--check" not in arguments:
        TARGET.write_text(render(), "utf-8")
        return 0
    if TARGET.exists() and TARGET.read_text("utf-8") == render():
        return 0
    print(f"{TARGET.name} is out of date: run `make docs` and commit it", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
