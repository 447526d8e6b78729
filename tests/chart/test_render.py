"""What the chart makes of its values, judged by the services' own settings classes."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_schema import CHART, DECIDED, settings_schema
from pydantic_settings import BaseSettings

from parley_inference.config import Settings as InferenceSettings
from parley_kit.resolver import parse_targets
from parley_session.fleet.targets import engine_targets
from support.helm import Document, Refused, Render

TRIED: Document = {
    "mongodb": {"embedded": {"enabled": True}},
    "redis": {"embedded": {"enabled": True}},
    "inference": {"pool": {"settings": {"engine": "sim"}, "gpus": 0}},
}
WHOLE: Document = yaml.safe_load((CHART / "ci" / "whole-values.yaml").read_text("utf-8"))
SEVERAL_NODES: Document = yaml.safe_load(
    (CHART / "ci" / "several-nodes-values.yaml").read_text("utf-8")
)
SECRETS = {
    "PARLEY_SESSION_MONGODB_URI": "mongodb://db/",
    "PARLEY_SESSION_LOG_REDIS_URL": "redis://log/",
    "PARLEY_CACHE_REDIS_URL": "redis://cache/",
}


def of_kind(documents: list[Document], kind: str) -> list[Document]:
    return [document for document in documents if document["kind"] == kind]


def named(documents: list[Document], kind: str, name: str) -> Document:
    return next(d for d in of_kind(documents, kind) if d["metadata"]["name"] == name)


def components(documents: list[Document]) -> Iterator[tuple[Document, Document]]:
    """Every Deployment, with its ConfigMap."""
    for deployment in of_kind(documents, "Deployment"):
        yield deployment, named(documents, "ConfigMap", deployment["metadata"]["name"])


def container(deployment: Document) -> Document:
    first: Document = deployment["spec"]["template"]["spec"]["containers"][0]
    return first


def group_of(documents: list[Document]) -> dict[str, Document]:
    """The pod templates of the LeaderWorkerSet."""
    [group] = of_kind(documents, "LeaderWorkerSet")
    made = group["spec"]["leaderWorkerTemplate"]
    return {"leader": made["leaderTemplate"], "follower": made["workerTemplate"]}


def service_of(deployment: Document) -> str:
    component: str = deployment["metadata"]["labels"]["app.kubernetes.io/component"]
    return {"worker": "session"}.get(component, component)


def read(monkeypatch: pytest.MonkeyPatch, deployment: Document, config: Document) -> BaseSettings:
    """Start's first step: the settings of a container, from all its variables."""
    service = service_of(deployment)
    for name, value in config["data"].items():
        monkeypatch.setenv(name, value)
    for entry in container(deployment).get("env", []):
        monkeypatch.setenv(entry["name"], entry.get("value") or SECRETS.get(entry["name"], "s"))
    return DECIDED[service][0]()


@pytest.mark.parametrize("values", [TRIED, WHOLE], ids=["tried", "whole"])
def test_every_service_takes_the_settings_that_the_chart_gives(
    render: Render, monkeypatch: pytest.MonkeyPatch, values: Document
) -> None:
    for deployment, config in components(render(values)):
        with monkeypatch.context() as patch:
            settings = read(patch, deployment, config)
        assert settings.host == "0.0.0.0"  # type: ignore[attr-defined]


def a_value(shape: dict[str, Any]) -> Any:
    """Some value that a setting's schema allows, another than its default if it can be."""
    for part in shape.get("anyOf", []):
        if part.get("type") != "null":
            return a_value({**part, "default": shape.get("default")})
    if "enum" in shape:
        return next(v for v in shape["enum"] if v != shape.get("default"))
    match shape["type"]:
        case "boolean":
            return not shape["default"]
        case "integer" | "number":
            low = shape.get("minimum", shape.get("exclusiveMinimum", 0))
            high = shape.get("maximum", shape.get("exclusiveMaximum", low + 10))
            middle = (low + high) / 2
            return int(middle) if shape["type"] == "integer" else middle
        case "object":
            return {"some": a_value(shape["additionalProperties"])}
    return shape.get("default") or "http://localhost"


@pytest.mark.parametrize("service", ["gateway", "session", "cache"])
def test_every_setting_reaches_its_service_as_it_was_given(
    render: Render, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    """Through YAML, the template's names and the environment, and back into the class."""
    shapes = settings_schema(service)["properties"]
    fields = {
        "".join(w.capitalize() for w in name.split("_")): name
        for name in DECIDED[service][0].model_fields
    }
    given = {name: a_value(shape) for name, shape in shapes.items()}
    documents = render({**TRIED, service: {"settings": given}})
    deployment = named(documents, "Deployment", f"try-parley-{service}")
    settings = read(monkeypatch, deployment, named(documents, "ConfigMap", f"try-parley-{service}"))
    for name, value in given.items():
        field = fields[name[0].upper() + name[1:]]
        assert str(getattr(settings, field)) == str(value) or getattr(settings, field) == value


def test_pods_may_run_where_pods_are_restricted(render: Render) -> None:
    """What the pod security level `restricted` asks of every container and pod."""
    documents = render(WHOLE) + render(TRIED)
    pods = [d["spec"]["template"]["spec"] for d in documents if "template" in d.get("spec", {})]
    pods += [d["spec"] for d in of_kind(documents, "Pod")]
    pods += [template["spec"] for template in group_of(render(SEVERAL_NODES)).values()]
    assert len(pods) > 10
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for one in pod["containers"]:
            context = one["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
        assert pod["enableServiceLinks"] is False


def test_only_those_who_look_for_engines_have_a_token(render: Render) -> None:
    for deployment in of_kind(render(WHOLE), "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        looks = deployment["metadata"]["labels"]["app.kubernetes.io/component"]
        assert pod["automountServiceAccountToken"] is (looks in {"session", "worker"})


def test_a_change_of_settings_rolls_the_pods_and_nothing_else_does(render: Render) -> None:
    def sums(values: Document) -> dict[str, str]:
        return {
            d["metadata"]["name"]: d["spec"]["template"]["metadata"]["annotations"][
                "checksum/settings"
            ]
            for d in of_kind(render(values), "Deployment")
        }

    before = sums(TRIED)
    after = sums(
        {**TRIED, "gateway": {"settings": {"heartbeatSeconds": 7}}, "session": {"replicas": 5}}
    )
    assert {name for name in before if before[name] != after[name]} == {"try-parley-gateway"}


def test_a_pod_has_longer_to_stop_than_its_service_takes(render: Render) -> None:
    values = {
        **TRIED,
        "gateway": {"settings": {"shutdownGraceSeconds": 20.5, "drainDelaySeconds": 7.5}},
        "session": {"settings": {"shutdownGraceSeconds": 100}},
    }
    documents = render(values)

    def grace(component: str) -> int:
        pod = named(documents, "Deployment", f"try-parley-{component}")["spec"]["template"]["spec"]
        seconds: int = pod["terminationGracePeriodSeconds"]
        return seconds

    assert grace("session") == 115
    assert grace("gateway") == 20.5 + 7.5 + 15


def test_secrets_come_from_secrets_alone(render: Render) -> None:
    documents = render(WHOLE)
    assert not of_kind(documents, "Secret")
    session = container(named(documents, "Deployment", "try-parley-session"))
    sources = {entry["name"]: entry["valueFrom"]["secretKeyRef"] for entry in session["env"]}
    assert sources == {
        "PARLEY_SESSION_MONGODB_URI": {"name": "stores", "key": "uri"},
        "PARLEY_SESSION_LOG_REDIS_URL": {"name": "stores", "key": "log-url"},
    }


def test_engines_have_their_gpus_their_weights_and_their_time(render: Render) -> None:
    big = named(render(WHOLE), "Deployment", "try-parley-inference-big")
    one = container(big)
    assert one["resources"]["limits"]["nvidia.com/gpu"] == 4
    assert {"name": "weights", "mountPath": "/models", "readOnly": True} in one["volumeMounts"]
    probe = one["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 1800
    # Ready, not merely alive: a model that never comes is loaded anew.
    assert probe["httpGet"]["path"] == "/readyz"
    assert one["livenessProbe"]["httpGet"]["path"] == "/healthz"
    plain = container(named(render(TRIED), "Deployment", "try-parley-inference-main"))
    assert plain["startupProbe"]["grpc"] == {"port": 50053}
    assert plain["livenessProbe"]["grpc"]["service"] == "liveness"


def test_an_engine_is_spread_over_its_gpus_unless_it_is_told_otherwise(render: Render) -> None:
    adapters = {"a": "/models/a"}
    pools: Document = {
        "spread": {"gpus": 4, "settings": {"engine": "vllm", "model": "m", "adapters": adapters}},
        "piped": {"gpus": 4, "settings": {"model": "m", "pipelineParallelSize": 4}},
        "main": {"settings": {"model": "m"}},
    }
    documents = render({**TRIED, "inference": {"pools": pools}})
    spread, piped, main = (
        named(documents, "ConfigMap", f"try-parley-inference-{pool}")["data"] for pool in pools
    )
    assert spread["PARLEY_INFERENCE_TENSOR_PARALLEL_SIZE"] == "4"
    assert json.loads(spread["PARLEY_INFERENCE_ADAPTERS"]) == adapters
    assert piped["PARLEY_INFERENCE_PIPELINE_PARALLEL_SIZE"] == "4"
    assert "PARLEY_INFERENCE_TENSOR_PARALLEL_SIZE" not in piped | main


@pytest.mark.parametrize(("pod", "rank"), [("leader", 0), ("follower", 1)])
def test_each_pod_of_a_model_over_several_nodes_is_told_its_part(
    render: Render, monkeypatch: pytest.MonkeyPatch, pod: str, rank: int
) -> None:
    documents = render(SEVERAL_NODES)
    one = group_of(documents)[pod]["spec"]["containers"][0]
    assert one["resources"]["limits"]["nvidia.com/gpu"] == 8
    # What the controller puts before all other variables, by which the kubelet expands them.
    told = {"LWS_LEADER_ADDRESS": "huge-0.huge.default", "LWS_WORKER_INDEX": str(rank)}
    [source] = one["envFrom"]
    given = dict(named(documents, "ConfigMap", source["configMapRef"]["name"])["data"])
    for entry in one["env"]:
        if "value" in entry:
            given[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda m: told[m[1]], entry["value"])
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = InferenceSettings()
    assert (settings.nodes, settings.node_rank) == (2, rank)
    assert settings.leader_address == "huge-0.huge.default"
    assert (settings.tensor_parallel_size, settings.pipeline_parallel_size) == (8, 2)


def test_who_leads_serves_and_is_found_and_who_follows_is_neither(render: Render) -> None:
    documents = render(SEVERAL_NODES)
    leader, follower = group_of(documents).values()
    called = named(documents, "Service", "try-parley-inference")["spec"]["selector"]
    assert called.items() <= leader["metadata"]["labels"].items()
    assert not called.items() <= follower["metadata"]["labels"].items()
    assert [port["name"] for port in follower["spec"]["containers"][0]["ports"]] == ["admin"]
    assert "grpc" in leader["spec"]["containers"][0]["startupProbe"]
    assert follower["spec"]["containers"][0]["startupProbe"]["httpGet"]["path"] == "/readyz"


def test_a_group_is_one_engine_to_what_scales_disrupts_and_guards_it(render: Render) -> None:
    documents = render(SEVERAL_NODES)
    [group] = of_kind(documents, "LeaderWorkerSet")
    assert "replicas" not in group["spec"]
    assert group["spec"]["leaderWorkerTemplate"]["restartPolicy"] == "RecreateGroupOnPodRestart"
    [scaler] = of_kind(documents, "ScaledObject")
    target = {"apiVersion": group["apiVersion"], "kind": group["kind"]}
    assert scaler["spec"]["scaleTargetRef"] == target | {"name": group["metadata"]["name"]}
    pods = [template["metadata"]["labels"] for template in group_of(documents).values()]
    budget = named(documents, "PodDisruptionBudget", group["metadata"]["name"])["spec"]
    policy = named(documents, "NetworkPolicy", group["metadata"]["name"])["spec"]
    [allowed] = policy["ingress"][0]["from"]
    for guarded in (budget["selector"], policy["podSelector"], allowed["podSelector"]):
        assert all(guarded["matchLabels"].items() <= labels.items() for labels in pods)
        other = named(documents, "Deployment", "try-parley-inference-main")
        labels = other["spec"]["template"]["metadata"]["labels"]
        assert not guarded["matchLabels"].items() <= labels.items()


def test_who_follows_has_the_certificate_of_engines(render: Render) -> None:
    tls = {"enabled": True, "certManager": {"enabled": True, "issuerRef": {"name": "parley"}}}
    for template in group_of(render({**SEVERAL_NODES, "tls": tls})).values():
        secrets = [volume.get("secret", {}) for volume in template["spec"]["volumes"]]
        assert "try-parley-inference-tls" in [secret.get("secretName") for secret in secrets]


def test_a_roll_takes_the_replicas_that_it_may(render: Render) -> None:
    documents = render(SEVERAL_NODES)
    [group] = of_kind(documents, "LeaderWorkerSet")
    rolls = group["spec"]["rolloutStrategy"]["rollingUpdateConfiguration"]
    assert rolls == {"maxSurge": 0, "maxUnavailable": 1}
    main = named(documents, "Deployment", "try-parley-inference-main")
    assert main["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_engines_scale_on_the_work_of_their_own_model(render: Render) -> None:
    documents = render(WHOLE)
    trigger = of_kind(documents, "ScaledObject")[0]["spec"]["triggers"][0]["metadata"]
    assert 'parley_session_engine_demand{namespace="default",model="Qwen3-8B"}' in trigger["query"]
    scaler = named(documents, "HorizontalPodAutoscaler", "try-parley-inference-big")
    metric = scaler["spec"]["metrics"][0]["external"]["metric"]
    assert metric["selector"]["matchLabels"] == {"model": "large"}


def test_an_upstreams_key_is_a_file_of_a_secret(render: Render) -> None:
    hosted = named(render(WHOLE), "Deployment", "try-parley-inference-hosted")
    volumes = hosted["spec"]["template"]["spec"]["volumes"]
    assert {"secretName": "upstream", "items": [{"key": "api-key", "path": "key"}]} in [
        volume.get("secret") for volume in volumes
    ]


def test_an_autoscaled_deployment_names_no_replicas(render: Render) -> None:
    documents = render(WHOLE)
    scaled = {
        d["spec"]["scaleTargetRef"]["name"] for d in of_kind(documents, "HorizontalPodAutoscaler")
    }
    scaled |= {d["spec"]["scaleTargetRef"]["name"] for d in of_kind(documents, "ScaledObject")}
    assert len(scaled) == 5
    for deployment in of_kind(documents, "Deployment"):
        named_replicas = "replicas" in deployment["spec"]
        assert named_replicas is (deployment["metadata"]["name"] not in scaled)


def test_network_policies_hold_the_platforms_arrows_and_no_others(render: Render) -> None:
    callers = {}
    for policy in of_kind(render({**WHOLE, **TRIED}), "NetworkPolicy"):
        called = policy["metadata"]["labels"]["app.kubernetes.io/component"]
        callers[called] = {
            peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
            for rule in policy["spec"]["ingress"]
            for peer in rule.get("from", [])
        }
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert callers == {
        "gateway": set(),
        "session": {"gateway"},
        "worker": set(),
        "cache": {"session", "worker"},
        "inference": {"session", "worker"},
        "mongodb": {"session", "worker"},
        "redis": {"session", "worker", "cache"},
    }


def test_every_pod_has_its_own_certificate_and_probes_that_tls_leaves_alone(
    render: Render,
) -> None:
    documents = render(WHOLE)
    for deployment in of_kind(documents, "Deployment"):
        component = deployment["metadata"]["labels"]["app.kubernetes.io/component"]
        owner = {"worker": "session"}.get(component, component)
        volumes = deployment["spec"]["template"]["spec"]["volumes"]
        secret = "gateway-tls" if owner == "gateway" else f"try-parley-{owner}-tls"
        assert {"secretName": secret, "defaultMode": 0o440} in [v.get("secret") for v in volumes]
        one = container(deployment)
        assert {"name": "certificates", "mountPath": "/etc/parley/tls", "readOnly": True} in one[
            "volumeMounts"
        ]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert one[probe]["httpGet"]["port"] == "admin"


def test_a_certificate_has_the_names_by_which_its_service_is_called(render: Render) -> None:
    documents = render(WHOLE)
    made = {
        d["spec"]["secretName"]: d["spec"]["dnsNames"] for d in of_kind(documents, "Certificate")
    }
    assert set(made) == {f"try-parley-{name}-tls" for name in ("session", "cache", "inference")}
    gateway = named(documents, "ConfigMap", "try-parley-gateway")["data"]
    session = named(documents, "ConfigMap", "try-parley-session")["data"]
    called = {
        "session": parse_targets(gateway["PARLEY_GATEWAY_SESSION_TARGETS"]),
        "cache": parse_targets(session["PARLEY_SESSION_CACHE_TARGETS"]),
        "inference": engine_targets(session["PARLEY_SESSION_INFERENCE_TARGETS"]),
    }
    for component, resolver in called.items():
        assert resolver.server_name("10.0.0.1:1") in made[f"try-parley-{component}-tls"]


def test_the_quickstart_loads_the_images_that_its_pods_ask_for(render: Render) -> None:
    readme = (CHART / "README.md").read_text("utf-8")
    [named_values] = re.findall(r"helm install parley \S+ -f (\S+) ", readme)
    documents = render(yaml.safe_load((CHART.parents[2] / named_values).read_text("utf-8")))
    [(start, names, tag)] = re.findall(r"kind load docker-image (\S+)\{(.+)\}:(\S+)", readme)
    pods = [d["spec"]["template"]["spec"] for d in documents if "template" in d.get("spec", {})]
    asked = {one["image"] for pod in pods for one in pod["containers"]}
    stores = {image for image in asked if image.startswith("docker.io/library/")}
    assert len(stores) == 2
    assert asked - stores == {f"{start}{name}:{tag}" for name in names.split(",")}
    # A machine, not a fleet.
    cpu = [one["resources"]["requests"]["cpu"] for pod in pods for one in pod["containers"]]
    assert sum(int(each.removesuffix("m")) for each in cpu) < 1000


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "mongodb.existingSecret"),
        ({**TRIED, "tls": {"enabled": True}}, "tls.secrets"),
        (
            {**TRIED, "tls": {"enabled": True, "certManager": {"enabled": True}}},
            "tls.certManager.issuerRef.name",
        ),
        ({**TRIED, "gatway": {}}, "gatway"),
        ({**TRIED, "session": {"settings": {"leaseSeconds": 0}}}, "leaseSeconds"),
        (
            {**TRIED, "inference": {"pools": {"a": {"settings": {"engine": "vllm"}}}}},
            "settings.model",
        ),
        (
            {
                **TRIED,
                "inference": {
                    "pools": {
                        "a": {"settings": {"engine": "sim"}, "autoscaling": {"minReplicas": 0}}
                    }
                },
            },
            "autoscaling.minReplicas",
        ),
        ({**TRIED, "httpRoute": {"enabled": True}}, "httpRoute.parentRefs"),
        (
            {**TRIED, "inference": {"pool": {"nodes": 2, "settings": {"engine": "sim"}}}},
            "only the vllm engine is spread over several nodes",
        ),
        (
            {
                **TRIED,
                "inference": {
                    "pool": {
                        "nodes": 2,
                        "gpus": 4,
                        "settings": {"model": "m", "tensorParallelSize": 4},
                    }
                },
            },
            "tensorParallelSize times pipelineParallelSize is 4, and 2 nodes have 8 devices",
        ),
        (
            {
                **TRIED,
                "inference": {
                    "pools": {"a": {"settings": {"engine": "sim"}, "weights": {"source": "volume"}}}
                },
            },
            "weights.volume",
        ),
    ],
)
def test_a_bad_values_file_is_refused_by_the_name_of_what_is_wrong(
    render: Render, values: Document, said: str
) -> None:
    with pytest.raises(Refused, match=said):
        render(values)


@pytest.mark.parametrize(
    "values", sorted((CHART / "ci").glob("*-values.yaml")), ids=lambda p: p.name
)
def test_helm_finds_no_fault(helm: str, values: Path) -> None:
    done = subprocess.run(
        [helm, "lint", "--strict", str(CHART), "-f", str(values)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
