"""The README's lines, as a reader would run them one after another."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from parley_devstack.stack import Stack

README = Path(__file__).parents[2] / "README.md"


def curl_blocks() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    return [block for block in blocks if block.startswith("curl ")]


@pytest.mark.parametrize("make", ["make run", "make test", "make help"])
def test_the_readme_names_the_commands_that_there_are(make: str) -> None:
    target = make.removeprefix("make ")
    assert f"`{make}`" in README.read_text("utf-8") or f"\n{make}" in README.read_text("utf-8")
    assert re.search(rf"^{target}:", (README.parent / "Makefile").read_text("utf-8"), re.MULTILINE)


async def test_the_curl_lines_work_in_their_order(sim_stack: Stack, tmp_path: Path) -> None:
    blocks = curl_blocks()
    assert len(blocks) == 5
    marker = "-- next --"
    script = f"\necho '{marker}'\n".join(blocks).replace("http://127.0.0.1:8080", sim_stack.url)
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-euo",
        "pipefail",
        "-c",
        script,
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    streamed, again, followed, read, deleted = out.decode().split(marker)
    assert "event: run" in streamed
    assert "event: done" in streamed
    assert json.loads(again)["cache"]["status"] == "exact"
    assert json.loads(followed)["context"]["messagesIncluded"] == 3
    assert json.loads(read)["messageCount"] == 4
    assert deleted.strip().startswith("HTTP/1.1 204")
