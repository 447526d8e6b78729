"""What `make run ENGINE=openai` finds out of its upstream before it starts anything."""

import asyncio
from pathlib import Path

import pytest

from parley_devstack.config import StackConfig
from parley_devstack.errors import PreflightError
from parley_devstack.upstream import look_at_upstream
from support.fake_upstream import MODEL, fake_upstream
from support.ports import free_ports

pytestmark = pytest.mark.integration


async def look(url: str, model: str = "", key_file: Path | None = None) -> StackConfig:
    config = StackConfig(engine="openai", upstream=url, model=model, upstream_key_file=key_file)
    return await asyncio.to_thread(look_at_upstream, config)


async def test_the_first_model_is_asked_for_unless_one_is_named(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-1\n")
    async with fake_upstream(key="sk-1") as upstream:
        assert (await look(upstream.url, key_file=key)).model == MODEL
        assert (await look(upstream.url, "another", key)).model == "another"


async def test_what_stands_in_the_way_is_told_in_a_sentence(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-wrong")
    async with fake_upstream(key="sk-1") as upstream:
        with pytest.raises(PreflightError, match="does not accept the key") as refused:
            await look(upstream.url, key_file=key)
        assert "sk-wrong" not in str(refused.value)
    with pytest.raises(PreflightError, match="Nothing that speaks HTTP answers"):
        await look(f"http://127.0.0.1:{free_ports(1)[0]}/v1")
