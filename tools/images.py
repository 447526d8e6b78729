"""Builds the platform's images: `python tools/images.py [NAME…]`, which `make images` calls.

`--builder` is docker, podman or buildah, with options of its own if need be; or, with
`--command`, a command that is called with TAG CONTEXT and then arguments of `docker build`
(`-f FILE`, `--build-arg NAME=VALUE`). What a builder made is asked for its size, its user
and its labels, and refused where these are not what the Dockerfile promises.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FILES = ROOT / "deploy" / "images"
SERVICES = ("gateway", "session", "cache")
VARIANTS = ("base", "cpu", "gpu")
NAMES = (*SERVICES, *(f"inference-{variant}" for variant in VARIANTS))
# Without vLLM, which takes gigabytes and has to be asked for.
USUAL = (*SERVICES, "inference-base")
BUILDERS = ("docker", "podman", "buildah")
USER = "65532:65532"
LABEL = "org.opencontainers.image."
# Where packages come from is passed on, where the environment says it.
PASSED_ON = ("PIP_INDEX_URL", "PIP_CERT")
SECONDS = 3600


class Failed(Exception):
    """An image was not built, or is not what it has to be."""


@dataclass(frozen=True)
class Built:
    """What a builder says of an image."""

    size: str
    user: str
    labels: dict[str, str]


def version() -> str:
    """Return the version of the distributions, which is the chart's as well."""
    project = tomllib.loads((ROOT / "services/gateway/pyproject.toml").read_text("utf-8"))
    found: str = project["project"]["version"]
    return found


def revision() -> str:
    """Return the commit, marked where the tree differs from it; "unknown" outside git."""
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty"]
    asked += ["--match", ""]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip() or "unknown"


def recipe(name: str) -> list[str]:
    """Return the arguments of `docker build` that make an image, but for its labels."""
    if name in SERVICES:
        file, argument = "service", f"SERVICE={name}"
    elif name in NAMES:
        file, argument = "inference", f"VARIANT={name.removeprefix('inference-')}"
    else:
        raise Failed(f"there is no image {name!r}; there are {', '.join(NAMES)}")
    passed = [f"{key}={os.environ[key]}" for key in PASSED_ON if key in os.environ]
    arguments = ["-f", str(FILES / f"{file}.Dockerfile")]
    for value in (argument, *passed):
        arguments += ["--build-arg", value]
    return arguments


def labels(version: str, revision: str) -> list[str]:
    """Return the arguments that say which version an image is."""
    return ["--build-arg", f"VERSION={version}", "--build-arg", f"REVISION={revision}"]


def found_builder() -> str:
    """Return the first builder on the PATH."""
    for name in BUILDERS:
        if shutil.which(name):
            return name
    raise Failed(f"none of {', '.join(BUILDERS)} is on the PATH: say BUILDER=, or COMMAND=")


class Builder:
    """docker, podman or buildah, by its command line; `extra`: more options of `build`."""

    def __init__(self, command: str, extra: str = "") -> None:
        self._command = shlex.split(command)
        self._extra = shlex.split(extra)
        self.dialect = Path(self._command[0]).name
        if self.dialect not in BUILDERS:
            raise Failed(f"{self.dialect!r} is not one of {', '.join(BUILDERS)}")

    def build(self, tag: str, context: Path, arguments: Sequence[str]) -> Built:
        """Build an image; what it says of itself."""
        _run([*self._command, "build", *self._extra, "-t", tag, *arguments, str(context)])
        return self.built(tag)

    def built(self, tag: str) -> Built:
        """Ask an image what it says of itself. Raises Failed where there is none."""
        if self.dialect == "buildah":
            config = json.loads(self.ask("inspect", "--type", "image", tag))["OCIv1"]["config"]
            size: Any = json.loads(self.ask("images", "--json", tag))[0]["size"]
        else:
            [found] = json.loads(self.ask("image", "inspect", tag))
            config, size = found["Config"], f"{found['Size'] / 1e6:.0f} MB"
        return Built(size, config.get("User", ""), config.get("Labels") or {})

    def save(self, tag: str, file: Path) -> None:
        """Write an image into a file, as `docker save` does."""
        if self.dialect == "buildah":
            self.ask("push", "--quiet", tag, f"docker-archive:{file}:{tag}")
        else:
            self.ask("save", "--output", str(file), tag)

    def ask(self, *arguments: str) -> str:
        """Call the builder; what it says. Raises Failed."""
        return _run(self.command(*arguments), quiet=True)

    def command(self, *arguments: str) -> list[str]:
        """Return a command line of the builder."""
        return [*self._command, *arguments]


def check(name: str, built: Built, version: str, revision: str) -> None:
    """Hold what an image says of itself against what was asked for. Raises Failed."""
    if built.user != USER:
        raise Failed(f"{name} runs as {built.user!r}, not as {USER}")
    asked = {"title": f"parley-{name}", "version": version, "revision": revision}
    for label, value in asked.items():
        if built.labels.get(LABEL + label) != value:
            raise Failed(f"{name}: label {label} is {built.labels.get(LABEL + label)!r}")


def _run(command: Sequence[str], *, quiet: bool = False) -> str:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE if quiet else None,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode:
        raise Failed(f"{shlex.join(command)} ended with {done.returncode}")
    return done.stdout or ""


def main(arguments: Sequence[str]) -> None:
    """Build what was asked for, and print what came of it."""
    parser = argparse.ArgumentParser(description="Build the platform's images.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--builder", default="", help="default: the first on the PATH")
    parser.add_argument("--build-options", default="", help="more options of the builder's build")
    parser.add_argument("--command", default="", help="called with TAG CONTEXT and arguments")
    parser.add_argument("--registry", default="localhost", help="what precedes the names")
    parser.add_argument("--tag", default="", help="default: the version")
    given = parser.parse_args(arguments)
    is_version, is_revision = version(), revision()
    names = given.names or USUAL
    recipes = {name: recipe(name) + labels(is_version, is_revision) for name in names}
    lines = []
    for name, wanted in recipes.items():
        tag = f"{given.registry}/parley-{name}:{given.tag or is_version}"
        if given.command:
            _run([*shlex.split(given.command), tag, str(ROOT), *wanted])
            lines.append(tag)
        else:
            builder = Builder(given.builder or found_builder(), given.build_options)
            built = builder.build(tag, ROOT, wanted)
            check(name, built, is_version, is_revision)
            lines.append(f"{tag}  {built.size}")
    print("\n".join(lines))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Failed as failure:
        sys.exit(str(failure))
