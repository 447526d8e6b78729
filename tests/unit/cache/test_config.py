"""Settings: what is wrong is refused, and the limits follow from them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from parley_cache.config import CacheSettings


def settings(**values: object) -> CacheSettings:
    return CacheSettings(**{"redis_url": "redis://127.0.0.1:1/0", **values})  # type: ignore[arg-type]


def test_the_tenants_share_follows_from_the_whole() -> None:
    limits = settings(max_bytes=10 * 1024 * 1024, max_entries=100, tenant_share=0.25).limits
    assert (limits.tenant_bytes, limits.tenant_entries) == (10 * 1024 * 1024 // 4, 25)
    assert settings(max_entries=1, tenant_share=0.01).limits.tenant_entries == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"redis_url": "http://127.0.0.1"},
        {"key_prefix": "a{b}"},
        {"key_prefix": ""},
        {"ttl_jitter": 0.3},
        {"ttl_seconds": 0},
        {"tenant_share": 0},
        {"tenant_share": 1.1},
        {"max_bytes": 1},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        settings(**wrong)


def test_the_url_is_required_and_its_password_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PARLEY_CACHE_REDIS_URL", raising=False)
    with pytest.raises(ValidationError):
        CacheSettings()  # type: ignore[call-arg]
    assert "hunter2" not in repr(settings(redis_url="redis://:hunter2@h:1/0"))
