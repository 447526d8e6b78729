"""An image in a container, confined as the chart's pods are.

It is nobody, has no capability, and can write to nothing but its volumes. docker and podman run it
themselves. buildah, which builds only, lends its file system to runc. The network is this
machine's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from images import USER, Builder, Failed

# Volumes of the chart's pods, empty at the start.
VOLUMES = ("/tmp", "/var/lib/parley", "/dev/shm")
NAMESPACES = ("pid", "ipc", "uts", "mount")
SECONDS = 60


@dataclass(frozen=True, slots=True)
class Container:
    """Command lines: `run` runs it to its end, `enter` goes before a command to run inside."""

    run: list[str]
    enter: list[str]

    def inside(self, program: str) -> str:
        """Run a Python program in it; what that prints. Raises AssertionError with its words."""
        command = [*self.enter, "python", "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout


@contextmanager
def container(
    builder: Builder,
    tag: str,
    *,
    environment: Mapping[str, str],
    folders: Mapping[str, Path],
    bundle: Path,
) -> Iterator[Container]:
    """A container while the block runs. `folders`: read-only, by where they are inside.

    `bundle`: an empty folder. Skips the test where nothing here can run what a builder made.
    """
    name = f"parley-test-{uuid.uuid4().hex[:8]}"
    if builder.dialect != "buildah":
        options = _options(name, environment, folders)
        try:
            yield Container(builder.command("run", *options, tag), builder.command("exec", name))
        finally:
            with suppress(Failed):  # it was never made
                builder.ask("rm", "--force", name)
        return
    runc = shutil.which("runc")
    if runc is None or os.geteuid() != 0:
        pytest.skip("buildah builds only: it takes runc, and root, to run what it made")
    said = json.loads(builder.ask("inspect", "--type", "image", tag))["OCIv1"]["config"]
    working = builder.ask("from", "--pull-never", tag).split()[-1]
    try:
        root = builder.ask("mount", working).strip()
        specification = _specification(root, said, environment, folders)
        (bundle / "config.json").write_text(json.dumps(specification), "utf-8")
        yield Container([runc, "run", "--bundle", str(bundle), name], [runc, "exec", name])
    finally:
        gone = [runc, "delete", "--force", name]
        subprocess.run(gone, capture_output=True, timeout=SECONDS, check=False)
        builder.ask("rm", working)


def _options(name: str, environment: Mapping[str, str], folders: Mapping[str, Path]) -> list[str]:
    """Options of `docker run`."""
    options = [f"--name={name}", "--network=host", "--read-only", "--cap-drop=ALL"]
    options += ["--security-opt=no-new-privileges"]
    options += [f"--tmpfs={path}:rw,exec,mode=1777" for path in VOLUMES]
    for inside, folder in folders.items():
        options.append(f"--mount=type=bind,source={folder},target={inside},readonly")
    return options + [f"--env={key}={value}" for key, value in environment.items()]


def _specification(
    root: str,
    said: dict[str, Any],
    environment: Mapping[str, str],
    folders: Mapping[str, Path],
) -> dict[str, Any]:
    """What runc is told (OCI runtime specification). `said`: the image's configuration."""
    user, group = map(int, USER.split(":"))
    kept = ["nosuid", "nodev"]
    mounts = [
        _mount("proc", "/proc", "proc", [*kept, "noexec"]),
        _mount("tmpfs", "/dev", "tmpfs", ["nosuid", "mode=755"]),
        _mount("sysfs", "/sys", "sysfs", [*kept, "noexec", "ro"]),
        *(_mount("tmpfs", path, "tmpfs", [*kept, "mode=1777"]) for path in VOLUMES),
        *(_mount("bind", to, str(source), ["rbind", "ro"]) for to, source in folders.items()),
    ]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": user, "gid": group},
            "args": said["Entrypoint"],
            "env": [*said["Env"], *(f"{key}={value}" for key, value in environment.items())],
            "cwd": said["WorkingDir"],
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "root": {"path": root, "readonly": True},
        "mounts": mounts,
        "linux": {
            "namespaces": [{"type": kind} for kind in NAMESPACES],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def _mount(kind: str, to: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"type": kind, "destination": to, "source": source, "options": options}
