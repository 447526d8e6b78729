"""Fetches the CRDs of what the chart can make objects for, into a folder.

`python tools/crds.py FOLDER`. They come from their projects' own Go modules, at pinned
versions that the Go checksum database vouches for; nothing of them is kept here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# Module, version, and the files in it.
SOURCES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        (
            "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
            "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        ),
    ),
    ("github.com/kedacore/keda/v2", "v2.17.2", ("config/crd/bases/keda.sh_scaledobjects.yaml",)),
    (
        "sigs.k8s.io/gateway-api",
        "v1.3.0",
        ("config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",),
    ),
    (
        "sigs.k8s.io/lws",
        "v0.7.0",
        ("config/crd/bases/leaderworkerset.x-k8s.io_leaderworkersets.yaml",),
    ),
    (
        "github.com/cert-manager/cert-manager",
        "v1.18.2",
        ("deploy/crds/crd-certificates.yaml",),
    ),
)


def main(arguments: list[str]) -> int:
    """Fetch what is not there; the exit code."""
    (target,) = map(Path, arguments)
    target.mkdir(parents=True, exist_ok=True)
    for module, version, files in SOURCES:
        missing = [file for file in files if not (target / Path(file).name).exists()]
        if missing:
            source = _download(f"{module}@{version}")
            for file in missing:
                (target / Path(file).name).write_bytes((source / file).read_bytes())
    return 0


def _download(module: str) -> Path:
    done = subprocess.run(
        ["go", "mod", "download", "-json", module],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout or "{}")
    if done.returncode or "Dir" not in found:
        raise SystemExit(f"{module}: {found.get('Error') or done.stderr}")
    return Path(found["Dir"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
