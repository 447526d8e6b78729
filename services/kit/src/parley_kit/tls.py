"""Certificates of a service: read from files, and tried as its peers will try them.

A certificate that its peers would refuse is refused here, with OpenSSL's own reason: both
ends of a handshake are played in memory, with the service's own files on either side.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Mode = Literal["off", "server", "mutual"]

# A handshake takes two round trips at most.
_MOST_ROUNDS: Final = 8


class BadCertificates(Exception):
    """The files cannot be used; ``str()`` is the sentence that says why."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where a service's certificates are, and what it does with them.

    ``certificate`` and ``key`` may be absent where nobody is shown one: a service that
    only calls others, which ask for none. ``serves``, ``calls``: whether it shows its
    certificate to callers, and to those that it calls (``mutual`` alone asks for one).
    """

    ca: Path
    certificate: Path | None = None
    key: Path | None = None
    mutual: bool = False
    serves: bool = False
    calls: bool = False


@dataclass(frozen=True, slots=True)
class Material:
    """What was in the files, PEM; ``expires``: the certificate's end in Unix time, 0: none."""

    ca: bytes
    certificate: bytes
    key: bytes
    expires: float


Identity = tuple[tuple[int, int, int], ...]


def identity(files: TlsFiles) -> Identity:
    """Return what changes when a file does; a symlink's swap shows. Raises BadCertificates."""
    found = []
    for path in _paths(files):
        try:
            seen = path.stat()
        except OSError as error:
            raise _unreadable(path, error) from error
        found.append((seen.st_ino, seen.st_size, seen.st_mtime_ns))
    return tuple(found)


def read(files: TlsFiles) -> Material:
    """Read the files and try them. Raises BadCertificates; blocks."""
    before = identity(files)
    ca, certificate, key = (
        _content(path) if path else b"" for path in (files.ca, files.certificate, files.key)
    )
    expires = _try(files)
    if identity(files) != before:
        raise BadCertificates("the certificates changed while they were read")
    return Material(ca, certificate, key, expires)


def _paths(files: TlsFiles) -> list[Path]:
    return [path for path in (files.ca, files.certificate, files.key) if path]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> BadCertificates:
    return BadCertificates(f"{path} cannot be read: {error.strerror}")


def _try(files: TlsFiles) -> float:
    """Play both ends of a handshake; when the certificate expires."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_REQUIRED if files.serves else ssl.CERT_NONE
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown_to_called = files.mutual and files.calls
    server.verify_mode = ssl.CERT_REQUIRED if shown_to_called else ssl.CERT_NONE
    for context in (client, server):
        _trust(context, files.ca)
        if files.certificate and files.key:
            _show(context, files.certificate, files.key)
    if not (files.serves or shown_to_called):
        return 0.0
    try:
        return _handshake(client, server)
    except ssl.SSLCertVerificationError as error:
        raise BadCertificates(
            f"{files.certificate} would be refused by those who trust {files.ca}: "
            f"{error.verify_message}"
        ) from error
    except ssl.SSLError as error:
        raise BadCertificates(f"{files.certificate} cannot be used: {error.reason}") from error


def _trust(context: ssl.SSLContext, ca: Path) -> None:
    try:
        context.load_verify_locations(cafile=ca)
    except (ssl.SSLError, ValueError) as error:
        raise BadCertificates(f"{ca} holds no certificate in PEM") from error
    except OSError as error:
        raise _unreadable(ca, error) from error


def _show(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        # Without a password: a key that wants one would be asked for on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise BadCertificates(f"{key} is not the key of {certificate}") from error
        raise BadCertificates(
            f"{certificate} and {key} are no certificate and unencrypted key in PEM"
        ) from error
    except OSError as error:
        raise _unreadable(certificate, error) from error


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> float:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = list(ends)
    for _ in range(_MOST_ROUNDS):
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                continue
    shown = next(seen for end in ends if (seen := end.getpeercert()))
    return float(ssl.cert_time_to_seconds(str(shown["notAfter"])))
