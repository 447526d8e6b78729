"""What the session service can be told, as `PARLEY_SESSION_*` in the environment."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri
from redis.asyncio.connection import parse_url

from parley_kit.config import Port, RpcServiceSettings
from parley_kit.replicas import parse_targets
from parley_session.fleet.choosing import Strategy
from parley_session.fleet.targets import engine_targets

_DAY = 86_400.0


class SessionSettings(RpcServiceSettings):
    """Settings of one replica. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="PARLEY_SESSION_")

    port: Port = Field(default=50051, description="Port to serve on; 0: a free one.")
    admin_port: Port = Field(
        default=9051, description="Port of /metrics, /healthz and /readyz; 0: a free one."
    )

    mongodb_uri: SecretStr = Field(description="MongoDB that keeps chats, messages and runs.")
    mongodb_database: str = Field(
        default="parley",
        min_length=1,
        max_length=38,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="Name of the database.",
    )
    mongodb_timeout_seconds: float = Field(
        default=5.0,
        ge=1,
        le=60,
        description="Longest operation, in whole. The driver looks for a lost server every half "
        "second: with less than twice that, no operation would outlast the look.",
    )
    mongodb_max_connections: int = Field(
        default=64, ge=1, le=4096, description="Most connections to MongoDB at once."
    )

    log_redis_url: SecretStr = Field(
        description="Redis or Valkey of the run log: redis://, rediss:// or unix://. Its policy "
        "must be noeviction."
    )
    log_ttl_seconds: float = Field(
        default=900.0,
        ge=60,
        le=_DAY,
        description="How long the log of an answer outlives its last entry.",
    )
    log_trust_policy: bool = Field(
        default=False,
        description="Accept a server that will not say its eviction policy (some managed ones).",
    )

    inference_targets: str = Field(
        description="Engines: `host:port,host:port`, `dns:///name:port` for all addresses of a "
        "name, or `kubernetes:///service.namespace:port` for the ready endpoints of a Service "
        "(several by commas, one a model, say; without a namespace: one's own)."
    )
    default_model: str = Field(
        default="",
        max_length=200,
        description="Model of chats that name none; empty: the first that the fleet lists.",
    )
    engine_strategy: Strategy = Field(
        default=Strategy.AFFINITY,
        description="How an engine is chosen: `affinity` (where the chat's prefix cache is warm, "
        "while its load allows), `least_loaded` or `round_robin`.",
    )
    allowed_engines: Literal["any", "own"] = Field(
        default="any",
        description="Engines that may answer tenants: `any`, or only the operator's `own`, so "
        "that nothing asked leaves the fleet (see PARLEY_INFERENCE_UPSTREAM_FLEET).",
    )
    allowed_engines_of_tenants: dict[
        Annotated[str, Field(min_length=1, max_length=128)], Literal["any", "own"]
    ] = Field(
        default_factory=dict,
        max_length=10_000,
        description="The same for tenants of which it differs: a JSON object of tenant and `any` "
        "or `own`.",
    )
    engine_slow_start_seconds: float = Field(
        default=30.0,
        ge=0,
        le=600,
        description="Time in which a new engine comes to its full share of requests; 0: at once.",
    )
    engine_ejection_failures: int = Field(
        default=3,
        ge=1,
        le=100,
        description="Failures running after which an engine is left alone for a while.",
    )
    engine_ejection_seconds: float = Field(
        default=5.0,
        ge=0.1,
        le=300,
        description="How long, the first time; doubled each time that its probe fails, up to a "
        "minute (or this, where it is longer).",
    )
    engine_panic_share: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="With less than this share of a model's engines left, ejection is ignored.",
    )
    count_timeout_seconds: float = Field(
        default=5.0, gt=0, le=60, description="Longest counting of tokens, one call."
    )

    cache_targets: str = Field(
        default="",
        description="Answer cache: `host:port,host:port` or `dns:///name:port`; empty: none.",
    )
    cache_wait_seconds: float = Field(
        default=10.0,
        ge=0,
        le=300,
        description="Longest wait for the same answer that another is making; 0: everyone "
        "makes their own.",
    )
    cache_scope: Literal["user", "global"] = Field(
        default="user",
        description="Whose answers a user may be given: their own, or, to the first question of "
        "a chat, those of all users of the tenant, where the cache allows it too "
        "(PARLEY_CACHE_GLOBAL_SCOPE).",
    )
    cache_lookup_timeout_seconds: float = Field(
        default=0.1,
        gt=0,
        le=5,
        description="Longest wait for the cache before the engine is asked instead.",
    )
    cache_head_start_seconds: float = Field(
        default=0.01,
        ge=0,
        le=10,
        description="How long a look-up may seek before an engine of the own fleet is asked "
        "beside it, whose work a hit throws away; more than a look-up may take: never.",
    )
    cache_write_timeout_seconds: float = Field(
        default=2.0, gt=0, le=60, description="Longest storing or invalidating of an answer."
    )

    max_live_runs: int = Field(
        default=512,
        ge=1,
        le=100_000,
        description="Answers made by this replica at a time; more are refused as `overloaded`.",
    )
    max_queued_runs: int = Field(
        default=512,
        ge=1,
        le=100_000,
        description="Answers that wait for an engine, in all; more are refused as `overloaded`.",
    )
    max_queued_runs_of_user: int = Field(
        default=32,
        ge=1,
        le=100_000,
        description="Answers of one user that wait for an engine; more are refused as "
        "`queue_full`.",
    )
    lease_seconds: float = Field(
        default=15.0,
        ge=0.5,
        le=300,
        description="Silence after which a run is taken over from its holder, which moves its "
        "beat every third of this.",
    )
    sweep_seconds: float = Field(
        default=3.0,
        gt=0,
        le=300,
        description="Time between two passes of the sweeper, about. Every replica and worker "
        "sweeps, whatever HOUSEKEEPING says.",
    )
    housekeeping: bool = Field(
        default=True,
        description="Take part in the jobs that one replica or worker does for all: expired "
        "chats, tombstones, invalidations, old keys, the usage report. At least one must.",
    )
    housekeeping_seconds: float = Field(
        default=10.0, gt=0, le=3600, description="Time between two runs of such a job, about."
    )
    job_deadline_seconds: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="Longest run of a periodic job. One whose replica was killed is done by "
        "another after one and a half times as long.",
    )
    tombstone_seconds: float = Field(
        default=2 * _DAY,
        ge=3600,
        le=30 * _DAY,
        description="How long the tombstone of a deleted chat stays; above the life of an "
        "idempotency key (a day) and the longest deadline.",
    )

    @field_validator("mongodb_uri")
    @classmethod
    def _is_mongodb_uri(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("mongodb://", "mongodb+srv://")):
            raise ValueError("must begin with mongodb:// or mongodb+srv://")
        # The name of an srv URI is looked up when the client first connects.
        if value.get_secret_value().startswith("mongodb://"):
            try:
                parse_uri(value.get_secret_value())
            except (PyMongoError, ValueError):
                # Their words may quote the URI.
                raise ValueError(
                    "is no MongoDB URI: mongodb://user:password@host:port/?option=value, the user "
                    "and the password percent-encoded"
                ) from None
        return value

    @field_validator("log_redis_url")
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

    @field_validator("inference_targets")
    @classmethod
    def _are_targets(cls, value: str) -> str:
        engine_targets(value)
        return value

    @field_validator("cache_targets")
    @classmethod
    def _are_targets_or_none(cls, value: str) -> str:
        if value.strip():
            parse_targets(value)
        return value.strip()
