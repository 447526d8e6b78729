"""The release goes, and takes with it what it brought. Last: it is the other tests' release."""

from support.cluster import READY, RELEASE, Cluster

KINDS = (
    "deployments,replicasets,pods,services,configmaps,serviceaccounts,roles,rolebindings,"
    "poddisruptionbudgets,networkpolicies,horizontalpodautoscalers,ingresses,statefulsets"
)


def test_nothing_of_the_release_is_left(cluster: Cluster) -> None:
    label = f"app.kubernetes.io/instance={RELEASE}"
    assert cluster.get(KINDS, "-l", label)["items"]
    cluster.helm("uninstall", RELEASE, "--wait", f"--timeout={READY}s")

    def left() -> list[str]:
        found = cluster.get(KINDS, "-l", label)["items"]
        # The pod of `helm test` stays until the next test, so that its log can be read.
        return [f"{o['kind']}/{o['metadata']['name']}" for o in found if not _of_a_test(o)]

    cluster.until(lambda: not left(), "everything gone")


def _of_a_test(document: dict[str, dict[str, dict[str, str]]]) -> bool:
    return "helm.sh/hook" in document["metadata"].get("annotations", {})
