"""A real API server takes all that the chart makes, strictly, with the CRDs that it names.

A server-side apply as a dry run: types, unknown and doubled fields, validation rules, and what
the `restricted` pod security level would warn of. `PARLEY_CRDS` is a folder of CRDs
(`make crds`).
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from chart_schema import CHART

from support.helm import Document, Render
from support.kube import Kube, started
from support.poll import until

pytestmark = pytest.mark.timeout(300)
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
NAMESPACE = "default"
# What every object is applied with.
QUERY = {"dryRun": "All", "fieldValidation": "Strict", "fieldManager": "scan", "force": "true"}
# Kinds that a namespace does not hold.
WHOLE_CLUSTER = frozenset({"ClusterRole", "ClusterRoleBinding"})


@dataclass(frozen=True)
class Server:
    """An API server, and the name of each kind in its paths."""

    client: httpx.AsyncClient
    plurals: dict[tuple[str, str], str]

    async def apply(self, document: Document) -> httpx.Response:
        """Apply a document as a dry run."""
        version, kind = document["apiVersion"], document["kind"]
        root = "/api/v1" if version == "v1" else f"/apis/{version}"
        scope = "" if kind in WHOLE_CLUSTER else f"/namespaces/{NAMESPACE}"
        path = f"{root}{scope}/{self.plurals[version, kind]}/{document['metadata']['name']}"
        return await self.client.patch(
            path,
            params=QUERY,
            content=json.dumps(document),
            headers={"Content-Type": "application/apply-patch+yaml"},
        )


@pytest.fixture(name="crds", scope="module")
def _crds() -> list[Document]:
    folder = os.environ.get("PARLEY_CRDS")
    if not folder:
        raise pytest.UsageError("PARLEY_CRDS names no folder of CRDs: make crds")
    texts = [path.read_text("utf-8") for path in sorted(Path(folder).glob("*.yaml"))]
    found = [document for text in texts for document in yaml.safe_load_all(text) if document]
    assert len(found) >= 5
    for crd in found:
        # Some are templates of their own charts, in their labels alone.
        crd["metadata"].pop("labels", None)
    return found


@pytest.fixture(name="server")
async def _server(crds: list[Document], tmp_path: Path) -> AsyncIterator[Server]:
    async with started(tmp_path) as kube:
        yield await prepared(kube, crds)


async def prepared(kube: Kube, crds: list[Document]) -> Server:
    """The API server with the CRDs, and a namespace that warns of what is not restricted."""
    client = kube.client
    assert client is not None
    for crd in crds:
        answer = await client.post(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json=crd, timeout=60
        )
        assert answer.status_code == 201, answer.text

    async def namespace() -> bool:
        answer = await client.patch(
            f"/api/v1/namespaces/{NAMESPACE}",
            content=json.dumps(
                {"metadata": {"labels": {"pod-security.kubernetes.io/warn": "restricted"}}}
            ),
            headers={"Content-Type": "application/merge-patch+json"},
        )
        return answer.status_code == 200

    await until(namespace, 60, "the namespace")
    account = {"metadata": {"name": "default"}}
    answer = await client.post(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", json=account)
    assert answer.status_code in {201, 409}, answer.text
    groups = {crd["spec"]["group"] for crd in crds}
    plurals: dict[tuple[str, str], str] = {}

    async def served() -> bool:
        plurals.clear()
        plurals.update(await _plurals(client))
        return groups <= {version.partition("/")[0] for version, _ in plurals}

    await until(served, 60, "the CRDs")
    return Server(client, plurals)


async def _plurals(client: httpx.AsyncClient) -> dict[tuple[str, str], str]:
    listed = (await client.get("/apis")).json()["groups"]
    versions = ["v1", *(each["groupVersion"] for group in listed for each in group["versions"])]
    found: dict[tuple[str, str], str] = {}
    for version in versions:
        path = "/api/v1" if version == "v1" else f"/apis/{version}"
        answer = await client.get(path)
        # A group is listed a moment before it is served.
        resources = answer.json()["resources"] if answer.status_code == 200 else []
        found |= {
            (version, resource["kind"]): resource["name"]
            for resource in resources
            if "/" not in resource["name"]
        }
    return found


async def test_the_api_server_takes_every_scenario(server: Server, render: Render) -> None:
    for values in VALUES:
        documents = render(yaml.safe_load(values.read_text("utf-8")))
        assert len(documents) > 10
        for document in documents:
            name = f"{values.name}: {document['kind']} {document['metadata']['name']}"
            answer = await server.apply(document)
            assert answer.status_code in {200, 201}, f"{name}: {answer.text}"
            assert "warning" not in answer.headers, f"{name}: {answer.headers['warning']}"


def _unknown(deployment: Any) -> None:
    deployment["spec"]["replicaCount"] = 1


def _wrong_type(deployment: Any) -> None:
    deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = "long"


def _invalid(deployment: Any) -> None:
    deployment["spec"]["selector"]["matchLabels"]["app"] = "other"


async def test_what_is_wrong_would_be_found(server: Server, render: Render) -> None:
    documents = render(yaml.safe_load(VALUES[0].read_text("utf-8")))
    for spoil in (_unknown, _wrong_type, _invalid):
        deployment = json.loads(json.dumps(next(d for d in documents if d["kind"] == "Deployment")))
        spoil(deployment)
        assert (await server.apply(deployment)).status_code in {400, 422, 500}, spoil
    deployment = next(d for d in documents if d["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["hostNetwork"] = True
    assert "warning" in (await server.apply(deployment)).headers
