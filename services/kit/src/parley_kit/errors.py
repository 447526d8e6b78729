"""The errors that services raise.

::

    Exception
    ├── ServiceError      an answer to a caller: status, stable code, sentence
    │   └── NoReplica     nobody is there to take the call
    └── StartupError      the process cannot start: a sentence for its operator
        └── AddressInUse  (also an OSError)

A ``ServiceError`` crosses the wire whole (``parley_kit.rpc.status``); foreign
errors become one at the seam where they first appear.
"""

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grpc


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field of a request: its path and a sentence."""

    field: str
    message: str


class ServiceError(Exception):
    """A refusal or failure that the caller is told about.

    ``code`` is the stable snake_case word that programs act on, ``detail`` a
    sentence for people that never holds a secret or prompt text, ``metadata``
    further facts by name, ``retry_after`` seconds after which trying again
    makes sense.
    """

    def __init__(
        self,
        status: grpc.StatusCode,
        code: str,
        detail: str = "",
        *,
        fields: Sequence[FieldError] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(status, code, detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.fields: tuple[FieldError, ...] = tuple(fields)
        self.metadata: dict[str, str] = dict(metadata or {})
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.code} ({self.status.name}): {self.detail}"


class NoReplica(ServiceError):
    """No replica of a service is ready to take a call."""

    def __init__(self, service: str) -> None:
        super().__init__(
            grpc.StatusCode.UNAVAILABLE, "unavailable", f"no replica of {service} is ready"
        )


class StartupError(Exception):
    """The process cannot start. ``str()`` is the sentence that its operator reads."""

    exit_code = 3


class AddressInUse(StartupError, OSError):
    """Another process listens on the address."""

    def __init__(self, host: str, port: int, what: str) -> None:
        super().__init__(
            errno.EADDRINUSE,
            f"{what} cannot listen on {host}:{port}: the port is in use by another process; "
            "stop it, or choose another port",
        )

    def __str__(self) -> str:
        return str(self.args[1])
