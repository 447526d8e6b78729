"""With TLS between the services, chats are made as without, and nobody else is served."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trustme

from support import cluster as kubernetes
from support.cluster import RELEASE, Cluster, Document

pytestmark = pytest.mark.timeout(3600)
HERE = Path(__file__).parent
COMPONENTS = ("gateway", "session", "cache", "inference")
PORTS = {"session": 50051, "cache": 50052, "inference": 50053}
# Run in a gateway's container: whether a service answers with HTTP/2's first frame, and the
# fingerprint of its certificate.
CALL = """
import hashlib, socket, ssl, sys

host, port, how = sys.argv[1:]
folder = "/etc/parley/tls/"
preface = b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n"
said, seen = b"", ""
with socket.create_connection((host, int(port)), timeout=20) as connection:
    try:
        if how != "plaintext":
            context = ssl.create_default_context(cafile=folder + "ca.crt")
            context.set_alpn_protocols(["h2"])
            if how == "mutual":
                context.load_cert_chain(folder + "tls.crt", folder + "tls.key")
            connection = context.wrap_socket(connection, server_hostname=host)
            seen = hashlib.sha256(connection.getpeercert(True)).hexdigest()
        connection.sendall(preface + bytes(3) + b"\\4" + bytes(5))
        said = connection.recv(9)
    except (ConnectionError, ssl.SSLError):
        pass
print("served" if said[3:4] == b"\\4" else "refused", seen)
"""


def issue(cluster: Cluster, ca: trustme.CA) -> None:
    """Put a new certificate of each component into its Secret, as cert-manager does."""
    secrets: list[Document] = []
    for component in COMPONENTS:
        name = f"{RELEASE}-{component}"
        within = f"{name}.{cluster.namespace}"
        leaf = ca.issue_cert(name, within, f"{within}.svc", f"{within}.svc.cluster.local")
        files = {
            "ca.crt": ca.cert_pem.bytes().decode(),
            "tls.crt": b"".join(blob.bytes() for blob in leaf.cert_chain_pems).decode(),
            "tls.key": leaf.private_key_pem.bytes().decode(),
        }
        metadata = {"name": f"tls-{component}"}
        secrets.append(
            {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": files}
        )
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": secrets})
    cluster.kubectl("apply", "-f", "-", given=given)


def call(cluster: Cluster, component: str, how: str) -> list[str]:
    """Call a service as somebody in the cluster: whether it serves, and its fingerprint."""
    gateway = cluster.pods("gateway")[0]
    place = (f"{RELEASE}-{component}", str(PORTS[component]))
    return cluster.kubectl("exec", gateway, "--", "python", "-c", CALL, *place, how).split()


def shows_another(cluster: Cluster, component: str, fingerprint: str) -> bool:
    """Whether a service serves with a certificate other than this one."""
    served, *shown = call(cluster, component, "mutual")
    return served == "served" and shown != [fingerprint]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Signs for this release alone."""
    return trustme.CA()


@pytest.fixture(scope="module")
def encrypted(images: None, authority: trustme.CA) -> Iterator[Cluster]:
    """One pod of each service in a namespace of its own, with TLS on both sides."""
    values = kubernetes.values()
    secrets = {component: f"tls-{component}" for component in COMPONENTS}
    values["tls"] = {"enabled": True, "mutual": True, "secrets": secrets}
    for component in ("gateway", "session", "cache"):
        values[component]["replicas"] = 1
        values[component]["settings"] = {
            **values[component].get("settings", {}),
            "tlsCheckSeconds": 1,
        }
    values["inference"]["pool"]["replicas"] = 1
    values["inference"]["pool"]["settings"]["tlsCheckSeconds"] = 1
    values["worker"]["replicas"] = 0
    with kubernetes.namespace() as made:
        issue(made, authority)
        made.stores(HERE / "stores.yaml")
        made.install(values)
        yield made


def test_chats_are_made_over_tls(encrypted: Cluster) -> None:
    assert "stored, read back and deleted" in encrypted.helm("test", RELEASE, "--logs")
    # A cache that cannot be reached is a miss, and the chat is made all the same.
    lookups = encrypted.metrics("cache", "parley_cache_lookups_total")
    assert sum(lookups.values()) > 0


@pytest.mark.parametrize("component", PORTS)
def test_who_has_no_certificate_is_not_served(encrypted: Cluster, component: str) -> None:
    assert call(encrypted, component, "mutual")[0] == "served"
    assert call(encrypted, component, "server")[0] == "refused"
    assert call(encrypted, component, "plaintext")[0] == "refused"


def test_certificates_are_replaced_while_pods_run(
    encrypted: Cluster, authority: trustme.CA
) -> None:
    pods = {component: encrypted.pods(component) for component in COMPONENTS}
    before = {component: call(encrypted, component, "mutual") for component in PORTS}
    issue(encrypted, authority)
    # The kubelet looks at the Secrets of a pod when the pod is changed, else once a minute.
    encrypted.kubectl("annotate", "pods", "--all", "parley.io/reissued=yes")
    for component, (_, fingerprint) in before.items():
        shows = partial(shows_another, encrypted, component, fingerprint)
        encrypted.until(shows, f"{component} to show another certificate")
    assert "stored, read back and deleted" in encrypted.helm("test", RELEASE, "--logs")
    assert {component: encrypted.pods(component) for component in COMPONENTS} == pods
    for component in COMPONENTS:
        assert encrypted.restarts(pods[component][0], component) == 0
