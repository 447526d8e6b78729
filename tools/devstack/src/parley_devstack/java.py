"""The Java parts of the MongoDB stand-in: which jars, and how they get here.

Every jar is pinned by version and SHA-256. They come from Maven Central (or the
mirror named by `MAVEN_REPOSITORY_URL`) by jgo, once, into a folder of the
checkout; a jar whose checksum differs is never put there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from parley_devstack.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Iterator

DOWNLOAD_TIMEOUT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Jar:
    """One artifact of a Maven repository, with the SHA-256 of its file."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        """The file's name in a repository."""
        return f"{self.artifact}-{self.version}.jar"


_NETTY = "4.2.2.Final"

# What mongo-java-server-h2-backend's POM resolves to, without its test scope, and a
# logger that writes warnings to stderr. Licences: mongo-java-server BSD-3-Clause, H2
# MPL-2.0/EPL-1.0, netty Apache-2.0, slf4j MIT.
MONGO_JARS = (
    Jar(
        "de.bwaldvogel",
        "mongo-java-server-h2-backend",
        "1.47.0",
        "58ca6760a25f8a05adfe8a0f7a8a042ca22bd472869028755931507cdce20e71",
    ),
    Jar(
        "de.bwaldvogel",
        "mongo-java-server-core",
        "1.47.0",
        "9a34c9ad6ac6261906295481838256033ec1efc8c93a3e3828e5d47a006b0bd4",
    ),
    Jar(
        "com.h2database",
        "h2",
        "2.3.232",
        "8dae62d22db8982c3dcb3826edb9c727c5d302063a67eef7d63d82de401f07d3",
    ),
    Jar(
        "org.slf4j",
        "slf4j-api",
        "2.0.17",
        "7b751d952061954d5abfed7181c1f645d336091b679891591d63329c622eb832",
    ),
    Jar(
        "org.slf4j",
        "slf4j-jdk14",
        "2.0.17",
        "ead25c1b15f59db1fb5552b76fe63de4164f0df40024d19287b75dece47ad3be",
    ),
    *(
        Jar("io.netty", artifact, _NETTY, sha256)
        for artifact, sha256 in (
            (
                "netty-transport",
                "116d766a1af4722fe76a4cdaed969644985d44e08ec1337d2dbab697dd109603",
            ),
            (
                "netty-handler",
                "d4ef582c78125457baa0cfa52992b5fb1bb9172d1a2c03b726e8b26e17d3fe2c",
            ),
            ("netty-common", "5d022f3acad74cb0f195f60213500a4000d1340e5e941edaf1a0e756686b9bae"),
            ("netty-buffer", "4820eeb2d3db269b20b30711e3d7d21979664249aaf10fc67f90dee935810747"),
            (
                "netty-resolver",
                "fa7841ffe2e39d52251814fb8560d6936b10ae7c67453ee50426b83fd5170ba0",
            ),
            (
                "netty-codec-base",
                "76987614ccb2fda7d3292b69ba5b61351f30e91bf5c7d8fa4b51bc32c9f67456",
            ),
            (
                "netty-transport-native-unix-common",
                "aa8821a7ea2ca47f62740bd1f37d67deb97824cc77e76dde6ae2c439a923fc9d",
            ),
        )
    ),
)


def fetch_jars(
    folder: Path,
    jars: tuple[Jar, ...] = MONGO_JARS,
    *,
    repository_url: str = "",
    on_progress: Callable[[str], None] | None = None,
) -> list[Path]:
    """Returns the jars' paths in `folder`, downloading those that are not there.

    Several processes may call it at once; one downloads, the others wait.
    Raises SetupError when a jar cannot be fetched or is not the pinned one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    from jgo.constants import MAVEN_CENTRAL_URL

    url = repository_url or os.environ.get("MAVEN_REPOSITORY_URL", "") or MAVEN_CENTRAL_URL
    with _locked(folder / ".lock"):
        missing = [jar for jar in jars if not _is_whole(folder / jar.filename, jar)]
        for number, jar in enumerate(missing, start=1):
            if on_progress is not None:
                on_progress(f"{jar.filename} ({number}/{len(missing)})")
            _fetch(jar, folder, url)
    return [folder / jar.filename for jar in jars]


def _fetch(jar: Jar, folder: Path, url: str) -> None:
    import requests
    from jgo.maven import MavenContext

    # jgo writes a file in place; a run that is cut off must not leave half a jar behind.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        context = MavenContext(
            repo_cache=Path(scratch),
            remote_repos={"repository": url.rstrip("/")},
            timeout=DOWNLOAD_TIMEOUT_SECONDS,
        )
        artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
        try:
            fetched = artifact.resolve()
        except (requests.RequestException, RuntimeError, OSError) as error:
            raise SetupError(
                f"{jar.filename} could not be fetched from {url} ({type(error).__name__}).",
                "Check the network, name a mirror in MAVEN_REPOSITORY_URL, or set MONGODB_URI "
                "to a MongoDB server that is already there.",
            ) from error
        if not _is_whole(fetched, jar):
            raise SetupError(
                f"{jar.filename} from {url} is not the file this project pins (SHA-256 differs).",
                "Check the mirror named in MAVEN_REPOSITORY_URL.",
            )
        fetched.replace(folder / jar.filename)


def _is_whole(path: Path, jar: Jar) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == jar.sha256


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
