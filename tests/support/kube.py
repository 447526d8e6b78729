"""A real Kubernetes API server with its etcd, nothing else: for what watches objects.

`PARLEY_TEST_KUBE_BIN` names a folder with `kube-apiserver` and `etcd`; without it, tests that
ask for `kube` are skipped. It starts in a few seconds, on free ports of this machine.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.poll import until
from support.ports import free_port

SETTING = "PARLEY_TEST_KUBE_BIN"
START_SECONDS = 60.0
TOKEN = "test-token"
SERVICE = "engines"


class Kube:
    """One API server; it can be killed, frozen and started again over the same etcd."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._bin = binaries
        self.folder = folder
        self.port = free_port()
        self._etcd_port, self._peer_port = free_port(), free_port()
        self._etcd: asyncio.subprocess.Process | None = None
        self._api: asyncio.subprocess.Process | None = None
        self.kubeconfig = folder / "kubeconfig"
        self.client: httpx.AsyncClient | None = None

    async def start(self) -> None:
        """Make keys, start both, wait until the API server is ready."""
        self._make_keys()
        self._etcd = await self._spawn(
            "etcd",
            *("--data-dir", str(self.folder / "etcd"), "--unsafe-no-fsync"),
            *("--listen-client-urls", self._etcd_url, "--advertise-client-urls", self._etcd_url),
            *("--listen-peer-urls", f"http://127.0.0.1:{self._peer_port}"),
        )
        trust = ssl.create_default_context(cafile=str(self.folder / "tls.crt"))
        self.client = httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{self.port}",
            headers={"Authorization": f"Bearer {TOKEN}"},
            verify=trust,
            timeout=10,
            trust_env=False,
        )
        await self.start_api()

    @property
    def _etcd_url(self) -> str:
        return f"http://127.0.0.1:{self._etcd_port}"

    async def start_api(self) -> None:
        """Start the API server (again) and wait until it is ready."""
        certificate, key = str(self.folder / "tls.crt"), str(self.folder / "tls.key")
        self._api = await self._spawn(
            "kube-apiserver",
            *(f"--etcd-servers={self._etcd_url}", "--bind-address=127.0.0.1"),
            *(f"--secure-port={self.port}", "--advertise-address=127.0.0.1"),
            *(f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}"),
            *("--service-account-issuer=https://kubernetes.default.svc",),
            *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"),
            *(f"--token-auth-file={self.folder / 'tokens.csv'}", "--authorization-mode=RBAC"),
            "--service-cluster-ip-range=10.0.0.0/24",
            # Without controllers nobody writes endpoints but the test.
            "--endpoint-reconciler-type=none",
        )

        async def ready() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return (await self._http.get("/readyz")).status_code == 200
            return False

        await until(ready, START_SECONDS, what="the API server")

    async def kill_api(self) -> None:
        """SIGKILL; watches break."""
        await _end(self._api)
        self._api = None

    def freeze_api(self) -> None:
        """SIGSTOP; connections stand and nothing comes."""
        assert self._api is not None
        self._api.send_signal(signal.SIGSTOP)

    def thaw_api(self) -> None:
        """SIGCONT."""
        assert self._api is not None
        self._api.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """End both."""
        if self.client is not None:
            await self.client.aclose()
        await _end(self._api)
        await _end(self._etcd)

    async def forget_history(self) -> None:
        """Compact etcd: older versions are gone for good."""
        async with httpx.AsyncClient(base_url=self._etcd_url, trust_env=False) as etcd:
            status = await etcd.post("/v3/maintenance/status", json={})
            revision = status.json()["header"]["revision"]
            answer = await etcd.post("/v3/kv/compaction", json={"revision": revision})
            assert answer.status_code == 200, answer.text

    async def put_slice(
        self,
        name: str,
        addresses: list[str],
        *,
        port: int = 50053,
        namespace: str = "default",
        service: str = SERVICE,
        **conditions: Any,
    ) -> None:
        """Write a slice, whether or not it is there."""
        body = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "ports": [{"name": "grpc", "port": port, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": [address], "conditions": {"ready": True} | conditions}
                for address in addresses
            ],
        }
        answer = await self._http.patch(
            f"{_slices(namespace)}/{name}?fieldManager=test&force=true",
            content=json.dumps(body),
            headers={"Content-Type": "application/apply-patch+yaml"},
        )
        assert answer.status_code in {200, 201}, answer.text

    async def delete_slice(self, name: str, namespace: str = "default") -> None:
        """Delete a slice."""
        answer = await self._http.delete(f"{_slices(namespace)}/{name}")
        assert answer.status_code == 200, answer.text

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create an object; what the API server made of it."""
        answer = await self._http.post(path, json=body)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def write_kubeconfig(self, token: str = TOKEN) -> Path:
        """Write a kubeconfig for whoever has the token; where it is."""
        authority = base64.b64encode((self.folder / "tls.crt").read_bytes()).decode()
        server = f"https://127.0.0.1:{self.port}"
        cluster = {"server": server, "certificate-authority-data": authority}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        self.kubeconfig.write_text(json.dumps(document), encoding="utf-8")
        return self.kubeconfig

    @property
    def _http(self) -> httpx.AsyncClient:
        assert self.client is not None
        return self.client

    def _make_keys(self) -> None:
        names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-keyout", "tls.key", "-out", "tls.crt", "-subj", "/CN=test", "-addext", names),
            ],
            cwd=self.folder,
            check=True,
            capture_output=True,
            timeout=30,
        )
        (self.folder / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")
        self.write_kubeconfig()

    async def _spawn(self, name: str, *arguments: str) -> asyncio.subprocess.Process:
        with (self.folder / f"{name}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                str(self._bin / name), *arguments, stdout=log, stderr=log, cwd=self.folder
            )


def _slices(namespace: str) -> str:
    return f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"


async def _end(process: asyncio.subprocess.Process | None) -> None:
    if process is not None and process.returncode is None:
        process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def started(folder: Path) -> AsyncIterator[Kube]:
    """An API server while the block runs; skips the test where there are no binaries."""
    binaries = Path(os.environ.get(SETTING) or "/nonexistent")
    if not all((binaries / name).exists() for name in ("etcd", "kube-apiserver")):
        pytest.skip(f"{SETTING} names no folder with kube-apiserver and etcd")
    kube = Kube(binaries, folder)
    try:
        await kube.start()
        yield kube
    finally:
        await kube.stop()
