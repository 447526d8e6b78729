"""Certificates of a platform's services, made on the spot and exchanged as a Secret's are."""

from __future__ import annotations

import datetime
from pathlib import Path

import trustme

LONG_AGO = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)


class Certificates:
    """A folder with `ca.crt`, `tls.crt` and `tls.key`, replaced all at once."""

    def __init__(self, folder: Path, ca: trustme.CA | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._version = 0
        self.ca = ca or trustme.CA()
        self.issue()

    @property
    def ca_file(self) -> Path:
        return self._folder / "current" / "ca.crt"

    @property
    def certificate_file(self) -> Path:
        return self._folder / "current" / "tls.crt"

    @property
    def key_file(self) -> Path:
        return self._folder / "current" / "tls.key"

    def issue(
        self,
        *names: str,
        expires: datetime.datetime | None = None,
        trust: tuple[trustme.CA, ...] = (),
    ) -> None:
        """Issue a new certificate and put it in place, by the swap of one symlink.

        `trust`: the authorities of `ca.crt`, in place of the one that issues.
        """
        names = names or ("127.0.0.1", "localhost")
        leaf = self.ca.issue_cert(*names, not_after=expires, not_before=LONG_AGO)
        self._version += 1
        version = self._folder / str(self._version)
        version.mkdir()
        trusted = b"".join(ca.cert_pem.bytes() for ca in trust or (self.ca,))
        (version / "ca.crt").write_bytes(trusted)
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        (version / "tls.crt").write_bytes(chain)
        (version / "tls.key").write_bytes(leaf.private_key_pem.bytes())
        fresh = self._folder / "fresh"
        fresh.symlink_to(version.name)
        fresh.replace(self._folder / "current")

    def settings(self, mode: str, **more: object) -> dict[str, object]:
        """The settings of a service that uses them."""
        return {
            "tls": mode,
            "tls_ca_file": self.ca_file,
            "tls_certificate_file": self.certificate_file,
            "tls_key_file": self.key_file,
            "tls_check_seconds": 0.05,
            **more,
        }
