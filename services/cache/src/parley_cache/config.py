"""What the cache can be told, as `PARLEY_CACHE_*` in the environment."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict
from redis.asyncio.connection import parse_url

from parley_cache.shelf_life import Expiry, ShelfLife
from parley_cache.store.base import BarrierLives, Limits
from parley_kit.config import Port, RpcServiceSettings

_MIB = 1024 * 1024
_DAY = 86_400.0


class CacheSettings(RpcServiceSettings):
    """Settings of the cache service."""

    model_config = SettingsConfigDict(env_prefix="PARLEY_CACHE_")
    TLS_CALLS: ClassVar[bool] = False

    port: Port = Field(default=50052, description="Port to serve on; 0: a free one.")
    admin_port: Port = Field(
        default=9052, description="Port of /metrics, /healthz and /readyz; 0: a free one."
    )
    redis_url: SecretStr = Field(
        description="Redis or Valkey that keeps the answers: redis://, rediss:// or unix://. "
        "Give it no persistence: a restored snapshot would bring back what was invalidated."
    )
    redis_max_connections: int = Field(
        default=64, ge=2, le=4096, description="Most connections to Redis at once."
    )
    redis_connect_seconds: float = Field(
        default=1.0, gt=0, le=30, description="Longest wait for a connection to Redis."
    )
    key_prefix: str = Field(
        default="parley:cache",
        min_length=1,
        max_length=64,
        description="What every key in Redis begins with.",
    )
    lookup_timeout_seconds: float = Field(
        default=0.25,
        gt=0,
        le=10,
        description="Longest look-up, where the caller's deadline does not end it sooner.",
    )
    write_timeout_seconds: float = Field(
        default=2.0, gt=0, le=60, description="Longest Store or GetStats."
    )
    invalidate_timeout_seconds: float = Field(
        default=30.0, gt=0, le=600, description="Longest Invalidate."
    )
    breaker_failures: int = Field(
        default=5,
        ge=1,
        le=1000,
        description="Failures in a row after which look-ups and stores no longer try Redis.",
    )
    breaker_seconds: float = Field(
        default=1.0, gt=0, le=60, description="Time after which one of them tries again."
    )
    ttl_seconds: float = Field(
        default=_DAY,
        ge=1,
        le=30 * _DAY,
        description="How long an answer may be served, where its question is in no class below.",
    )
    ttl_changing_seconds: float = Field(
        default=3600.0,
        ge=1,
        le=30 * _DAY,
        description="The same where it changes slowly: prices, laws, versions, office holders; "
        "never longer than TTL_SECONDS.",
    )
    ttl_timeless_seconds: float = Field(
        default=7 * _DAY,
        ge=1,
        le=30 * _DAY,
        description="The same where it does not change: definitions, arithmetic, translations; "
        "never shorter than TTL_SECONDS.",
    )
    ttl_jitter: float = Field(
        default=0.1,
        ge=0,
        le=0.25,
        description="Share of these by which each is drawn longer or shorter.",
    )
    max_bytes: int = Field(
        default=256 * _MIB,
        ge=_MIB,
        description="Memory for all tenants together, as reckoned from what is stored; keep it "
        "well under Redis' maxmemory.",
    )
    max_entries: int = Field(
        default=200_000, ge=1, le=100_000_000, description="Entries of all tenants together."
    )
    tenant_share: float = Field(
        default=0.5, gt=0, le=1, description="Share of these bounds that one tenant may take."
    )
    max_question_bytes: int = Field(
        default=32_768, ge=1, le=262_144, description="Longest question that is cached."
    )
    max_answer_bytes: int = Field(
        default=262_144, ge=1, le=4 * _MIB, description="Longest answer that is cached."
    )
    global_scope: bool = Field(
        default=False,
        description="Whether a tenant's users may be given each other's answers (first turns "
        "only, and nothing that seems personal).",
    )
    lease_seconds: float = Field(
        default=15.0,
        ge=0.1,
        le=3600,
        description="Silence after which another of many who ask the same may make the answer; "
        "whoever makes it says three times as often that it goes on.",
    )
    max_wait_seconds: float = Field(
        default=30.0, ge=0, le=600, description="Longest wait for an answer that another makes."
    )
    max_waiting: int = Field(
        default=1_024,
        ge=0,
        le=100_000,
        description="Askers that wait so at a time, on one replica; more go on.",
    )
    semantic: Literal["auto", "on", "off"] = Field(
        default="off",
        description="Match questions by meaning too (docs/adr/0027 says why that is not the "
        "default); auto: where the embedding model is there; on: do not start without.",
    )
    embedding_model: str = Field(
        default="",
        description="Folder of the embedding model: model.onnx and tokenizer.json; empty: none.",
    )
    calibration: str = Field(
        default="",
        description="Calibration of that model; empty: the one that is shipped, for "
        "all-MiniLM-L6-v2 as int8.",
    )
    cross_encoder_model: str = Field(
        default="",
        description="Folder of a cross-encoder that must agree as well; empty: none.",
    )
    embedding_timeout_seconds: float = Field(
        default=0.1, gt=0, le=10, description="Longest wait for one question's embedding."
    )
    nominees: int = Field(
        default=8, ge=1, le=64, description="Stored questions that a look-up compares at most."
    )
    index: Literal["local", "vector_sets"] = Field(
        default="local",
        description="Where near questions are sought: in this process, or in Redis' vector "
        "sets (Redis 8 and later; without them, locally).",
    )
    index_max_items: int = Field(
        default=200_000,
        ge=1,
        le=100_000_000,
        description="Vectors held by a replica, or by a vector set; 1.5 kB each, with 384 "
        "dimensions.",
    )
    index_graph_above: int = Field(
        default=2_048,
        ge=1,
        le=10_000_000,
        description="Comparable questions above which the local index seeks approximately.",
    )
    index_reconcile_seconds: float = Field(
        default=300.0,
        gt=0,
        le=86_400,
        description="Time between two comparisons of the index with what Redis stores.",
    )
    index_canary_seconds: float = Field(
        default=30.0, gt=0, le=3600, description="Time between two checks of the index."
    )
    global_least_askers: int = Field(
        default=3,
        ge=1,
        le=64,
        description="Different users who must have asked before one is given another's answer.",
    )
    tombstone_seconds: float = Field(
        default=_DAY,
        ge=1,
        le=30 * _DAY,
        description="How long answers from an invalidated chat or message are refused; above "
        "the longest time that a Store of such an answer may be late.",
    )
    barrier_seconds: float = Field(
        default=3600.0,
        ge=1,
        le=30 * _DAY,
        description="How long answers that cannot show when they were begun are refused after "
        "their user, model or tenant was invalidated; above the longest run.",
    )
    max_barriers: int = Field(
        default=50_000,
        ge=1,
        le=1_000_000,
        description="Invalidations remembered per tenant; one more invalidates the tenant.",
    )
    sweep_seconds: float = Field(
        default=5.0, gt=0, le=3600, description="Time between two rounds of upkeep."
    )

    @field_validator("redis_url")
    @classmethod
    def _is_redis_url(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        try:
            parse_url(value.get_secret_value())
        except ValueError:
            # Its words may quote the URL.
            raise ValueError(
                "is no Redis URL: redis://user:password@host:port/database, the user and the "
                "password percent-encoded"
            ) from None
        return value

    @field_validator("key_prefix")
    @classmethod
    def _has_no_braces(cls, value: str) -> str:
        # Braces would take the place of the tenant's hash tag.
        if not value.isprintable() or set(value) & set("{} "):
            raise ValueError("must be printable, without braces and spaces")
        return value

    @property
    def expiry(self) -> Expiry:
        """How long answers live."""
        return Expiry(
            self.ttl_seconds,
            self.ttl_jitter,
            slowly_changing=self.ttl_changing_seconds,
            timeless=self.ttl_timeless_seconds,
        )

    @property
    def longest_ttl_seconds(self) -> float:
        """How long any of them may live, the jitter apart."""
        return max(map(self.expiry.seconds, ShelfLife))

    @property
    def limits(self) -> Limits:
        """Bounds on what is kept."""
        return Limits(
            max_bytes=self.max_bytes,
            max_entries=self.max_entries,
            tenant_bytes=max(1, int(self.max_bytes * self.tenant_share)),
            tenant_entries=max(1, int(self.max_entries * self.tenant_share)),
        )

    @property
    def barrier_lives(self) -> BarrierLives:
        """How long barriers stand."""
        return BarrierLives(self.tombstone_seconds, self.barrier_seconds)
