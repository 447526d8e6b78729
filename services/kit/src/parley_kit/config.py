"""Settings from the environment: one class a service, one sentence a mistake.

A service subclasses ``ServiceSettings``, sets ``env_prefix`` and adds fields,
each with a description and bounds. ``load_settings`` is what ``__main__`` calls:
a wrong value, a missing one, and a variable that does not exist are each told
in one line on stderr (never with the value), and the process exits with 2.
"""

import difflib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, Self, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from parley_kit.tls import Mode, TlsFiles

EXIT_WRONG_SETTINGS = 2

Port = Annotated[int, Field(ge=0, le=65535)]

# What Kubernetes puts into a pod's environment for each Service of its namespace.
_SERVICE_LINK = re.compile(r"SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP)(_\w+)?")
_SERVICE_LINK_HINT = (
    "comes from a Kubernetes service link; set `enableServiceLinks: false` in the pod"
)


class ServiceSettings(BaseSettings):
    """What every service can be told."""

    model_config = SettingsConfigDict(
        env_prefix="PARLEY_", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    host: str = Field(default="127.0.0.1", description="Address to serve on.")
    port: Port = Field(default=0, description="Port to serve on; 0: a free one.")
    admin_host: str = Field(
        default="127.0.0.1", description="Address of /metrics, /healthz and /readyz."
    )
    admin_port: Port = Field(
        default=0, description="Port of /metrics, /healthz and /readyz; 0: a free one."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level that is logged."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="JSON lines for machines, or short lines for people."
    )
    otlp_endpoint: str = Field(
        default="",
        max_length=2048,
        description="OTLP over gRPC: where spans are sent, as http://host:port (plain) or "
        "https://host:port; empty: nowhere.",
    )
    trace_sample_ratio: float = Field(
        default=1.0, ge=0, le=1, description="Share of the traces begun here that is recorded."
    )
    shutdown_grace_seconds: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="Time that calls in progress have to end on SIGTERM.",
    )
    tls: Mode = Field(
        default="off",
        description="gRPC between the services: `off` (plaintext), `server` (servers show a "
        "certificate) or `mutual` (callers show one too, and none is served without). The same "
        "in every service.",
    )
    tls_ca_file: Path | None = Field(
        default=None, description="PEM: who signs the certificates of the other services."
    )
    tls_certificate_file: Path | None = Field(
        default=None,
        description="PEM: this service's certificate, and those between it and the CA.",
    )
    tls_key_file: Path | None = Field(default=None, description="PEM: its key, not encrypted.")
    tls_check_seconds: float = Field(
        default=5.0,
        ge=0.05,
        le=3600,
        description="Seconds between two looks at these files; a change is taken up, without an "
        "interruption.",
    )

    # Whether the service shows a certificate to its callers, and whether it calls others.
    TLS_SERVES: ClassVar[bool] = False
    TLS_CALLS: ClassVar[bool] = True

    @field_validator("otlp_endpoint")
    @classmethod
    def _is_endpoint(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^/\s]+/?", value):
            raise ValueError("must be http://host:port or https://host:port")
        return value

    @model_validator(mode="after")
    def _has_certificates(self) -> Self:
        given = {
            "TLS_CA_FILE": self.tls_ca_file,
            "TLS_CERTIFICATE_FILE": self.tls_certificate_file,
            "TLS_KEY_FILE": self.tls_key_file,
        }
        if self.tls == "off":
            if unused := [name for name, path in given.items() if path]:
                raise ValueError(f"{unused[0]} is set and TLS is off: set TLS=server or mutual")
            return self
        needed = list(given) if self._shows_certificate else ["TLS_CA_FILE"]
        if missing := [name for name in needed if not given[name]]:
            raise ValueError(f"TLS={self.tls} needs {' and '.join(missing)}")
        return self

    @property
    def _shows_certificate(self) -> bool:
        return self.TLS_SERVES or (self.TLS_CALLS and self.tls == "mutual")

    @property
    def tls_files(self) -> TlsFiles | None:
        """Where the certificates are; None: plaintext."""
        if self.tls == "off" or self.tls_ca_file is None:
            return None
        return TlsFiles(
            ca=self.tls_ca_file,
            certificate=self.tls_certificate_file if self._shows_certificate else None,
            key=self.tls_key_file if self._shows_certificate else None,
            mutual=self.tls == "mutual",
            serves=self.TLS_SERVES,
            calls=self.TLS_CALLS,
        )


class RpcServiceSettings(ServiceSettings):
    """What every service that serves gRPC can be told."""

    TLS_SERVES: ClassVar[bool] = True

    connection_age_seconds: float = Field(
        default=600.0,
        ge=1,
        le=86_400,
        description="Age at which a gRPC connection is ended, so that clients behind a plain "
        "TCP balancer find new replicas; calls in progress end on it.",
    )


SettingsT = TypeVar("SettingsT", bound=BaseSettings)


def load_settings(cls: type[SettingsT]) -> SettingsT:
    """Read the environment; on any mistake print one line each to stderr and exit with 2."""
    problems = list(_unknown_variables(cls, os.environ))
    try:
        settings = cls()
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        problems += [_describe(cls, item) for item in details]
    except SettingsError as error:
        problems.append(_describe_unreadable(cls, error))
    else:
        if not problems:
            return settings
    return _exit(problems)


def variable_name(cls: type[BaseSettings], field: str) -> str:
    """Return the environment variable of a field."""
    return f"{cls.model_config.get('env_prefix', '')}{field}".upper()


def settings_table(cls: type[BaseSettings]) -> str:
    """Describe a settings class as a Markdown table: variable, type, default, meaning."""
    lines = ["| Variable | Type | Default | Meaning |", "|---|---|---|---|"]
    for name, info in cls.model_fields.items():
        cells = (
            f"`{variable_name(cls, name)}`",
            _type_of(info),
            _default_of(info),
            info.description or "",
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _unknown_variables(cls: type[BaseSettings], environ: Mapping[str, str]) -> Iterator[str]:
    prefix = str(cls.model_config.get("env_prefix", "")).upper()
    known = {variable_name(cls, field): field for field in cls.model_fields}
    for name in sorted(environ):
        if not name.upper().startswith(prefix) or name.upper() in known:
            continue
        if _SERVICE_LINK.fullmatch(name.upper().removeprefix(prefix)):
            yield f"{name}: {_SERVICE_LINK_HINT}"
            continue
        nearest = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.0)
        yield f"{name}: there is no such setting; did you mean {nearest[0]}?"


def _describe(cls: type[BaseSettings], item: ErrorDetails) -> str:
    if not item["loc"]:
        return f"{variable_name(cls, '*')}: {_sentence(item)}"
    name = variable_name(cls, str(item["loc"][0]))
    if item["type"] == "missing":
        return f"{name}: is required"
    if os.environ.get(name, "").startswith("tcp://"):
        return f"{name}: {_SERVICE_LINK_HINT}"
    return f"{name}: {_sentence(item)}"


def _sentence(item: ErrorDetails) -> str:
    """Return what pydantic says, unless it repeats what it was given."""
    message = item["msg"].removeprefix("Value error, ")
    given = item.get("input")
    if isinstance(given, str) and len(given) > 2 and given in message:
        return "is not valid"
    return message[:1].lower() + message[1:]


def _describe_unreadable(cls: type[BaseSettings], error: SettingsError) -> str:
    field = re.search(r'field "(\w+)"', str(error))
    return f"{variable_name(cls, field[1] if field else '*')}: must be JSON"


def _exit(problems: list[str]) -> NoReturn:
    for line in problems:
        print(line, file=sys.stderr)  # noqa: T201 - logging is not set up yet
    raise SystemExit(EXIT_WRONG_SETTINGS)


def _type_of(info: FieldInfo) -> str:
    annotation: Any = info.annotation
    if annotation is SecretStr:
        name = "secret"
    elif getattr(annotation, "__origin__", None) is Literal:
        name = " or ".join(f"`{value}`" for value in annotation.__args__)
    else:
        name = getattr(annotation, "__name__", str(annotation))
    limits = {
        label: getattr(limit, attribute)
        for limit in info.metadata
        for attribute, label in _LIMITS.items()
        if getattr(limit, attribute, None) is not None
    }
    return ", ".join([name, *(f"{label} {value}" for label, value in limits.items())])


_LIMITS = {
    "gt": ">",
    "ge": "≥",
    "lt": "<",
    "le": "≤",
    "min_length": "length ≥",
    "max_length": "length ≤",
}


def _default_of(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    default = info.get_default(call_default_factory=False)
    if default is PydanticUndefined or default is None:
        return ""
    if isinstance(default, SecretStr):
        return "`(set)`" if default.get_secret_value() else '`""`'
    return f"`{default}`" if default != "" else '`""`'
