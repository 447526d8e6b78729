"""Everything the gateway can be told, from ``PARLEY_GATEWAY_…``."""

import ipaddress
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from parley_gateway.bounds import MAX_TIMEOUT_SECONDS
from parley_kit.config import Port, ServiceSettings
from parley_kit.replicas import parse_targets


class GatewaySettings(ServiceSettings):
    """The gateway's settings."""

    model_config = SettingsConfigDict(env_prefix="PARLEY_GATEWAY_")

    port: Port = Field(default=8080, description="Port of the REST interface; 0: a free one.")
    admin_port: Port = Field(
        default=9080, description="Port of /metrics, /healthz and /readyz; 0: a free one."
    )
    session_targets: str = Field(
        default="127.0.0.1:50051",
        max_length=8192,
        description="Session replicas: host:port,host:port or dns:///name:port.",
    )
    auth: Literal["none", "keys"] = Field(
        default="none",
        description="Who may ask: `none` (everybody; the user is whoever is named) or `keys`.",
    )
    allow_public_none: bool = Field(
        default=False,
        description="Serve on another address than loopback although AUTH is none.",
    )
    keys_file: Path | None = Field(
        default=None, description="The key file for AUTH=keys; re-read when it changes."
    )
    keys_check_seconds: float = Field(
        default=2.0, ge=0.05, le=300, description="Seconds between two looks at the key file."
    )
    cors_origins: str = Field(
        default="",
        max_length=8192,
        description="Origins that browsers may call from, comma-separated; `*`: any; empty: none.",
    )
    max_body_bytes: int = Field(
        default=1024 * 1024, ge=1024, le=64 * 1024 * 1024, description="Longest request body."
    )
    body_timeout_seconds: float = Field(
        default=30.0, gt=0, le=600, description="Time for a whole body to arrive."
    )
    max_head_bytes: int = Field(
        default=32 * 1024,
        ge=1024,
        le=1024 * 1024,
        description="Longest request line and headers together.",
    )
    max_headers: int = Field(default=100, ge=10, le=1000, description="Most headers.")
    head_timeout_seconds: float = Field(
        default=15.0, gt=0, le=600, description="Time for a whole request head to arrive."
    )
    keep_alive_seconds: int = Field(
        default=75, ge=1, le=3600, description="Idle connections are closed after so long."
    )
    max_connections: int = Field(
        default=20_000, ge=1, le=1_000_000, description="Connections open at a time."
    )
    max_open_answers: int = Field(
        default=4000,
        ge=1,
        le=1_000_000,
        description="Answers streamed or waited for at a time; more are refused with 503.",
    )
    default_timeout_seconds: float = Field(
        default=120.0,
        ge=1,
        le=MAX_TIMEOUT_SECONDS,
        description="An answer's time where the caller sets none.",
    )
    answer_margin_seconds: float = Field(
        default=5.0,
        ge=0.1,
        le=60,
        description="How much longer than an answer's own time the gateway waits for its end.",
    )
    call_timeout_seconds: float = Field(
        default=10.0, ge=0.1, le=120, description="Time of every other call to session."
    )
    heartbeat_seconds: float = Field(
        default=15.0,
        ge=0.05,
        le=300,
        description="A comment line is sent on a stream that was idle for so long.",
    )

    drain_delay_seconds: float = Field(
        default=0.0,
        ge=0,
        le=120,
        description="On SIGTERM: time between saying `not ready` and taking no new connection, so "
        "that balancers notice.",
    )

    @field_validator("session_targets")
    @classmethod
    def _are_targets(cls, value: str) -> str:
        parse_targets(value)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str) -> str:
        for origin in split_list(value):
            if origin != "*" and (
                not origin.startswith(("http://", "https://")) or origin.count("/") != 2
            ):
                raise ValueError("must be origins such as https://app.example.org, or *")
        return value

    @model_validator(mode="after")
    def _is_safe(self) -> "GatewaySettings":
        if self.auth == "keys" and self.keys_file is None:
            raise ValueError("AUTH=keys needs KEYS_FILE")
        if self.auth == "none" and not self.allow_public_none and not _is_loopback(self.host):
            raise ValueError(
                "AUTH=none on an address that is not loopback lets everybody read every chat; "
                "set AUTH=keys, or ALLOW_PUBLIC_NONE=true if something in front decides who asks"
            )
        return self

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins that browsers may call from."""
        return tuple(split_list(self.cors_origins))


def split_list(value: str) -> list[str]:
    """Split at commas, dropping blanks."""
    return [item.strip() for item in value.split(",") if item.strip()]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
