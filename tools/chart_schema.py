"""Writes what the chart's values.yaml and the services' settings say: schema and table.

`python tools/chart_schema.py` writes values.schema.json and the table of the chart's
README.md; `--check` fails when one is out of date. The schema's structure is that of
values.yaml: each value's type is its default's, unless `SHAPES` says more. Settings come
from the services' own classes, bounds included, so that a value which a service would
refuse is refused before anything is installed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic_settings import BaseSettings

from parley_cache.config import CacheSettings
from parley_gateway.config import GatewaySettings
from parley_inference.config import Settings as InferenceSettings
from parley_session.config import SessionSettings

CHART = Path(__file__).parent.parent / "deploy" / "helm" / "parley"
MARK = "<!-- values -->"

Schema = dict[str, Any]

# Settings that the chart decides, by service; the first of them in every service.
EVERYWHERE = frozenset({
    "host", "port", "admin_host", "admin_port", "log_level", "log_format", "otlp_endpoint",
    "trace_sample_ratio", "tls", "tls_ca_file", "tls_certificate_file", "tls_key_file",
})  # fmt: skip
DECIDED: dict[str, tuple[type[BaseSettings], frozenset[str]]] = {
    "gateway": (
        GatewaySettings,
        EVERYWHERE | {"session_targets", "auth", "allow_public_none", "keys_file"},
    ),
    "session": (
        SessionSettings,
        EVERYWHERE
        | {"mongodb_uri", "mongodb_database", "log_redis_url", "inference_targets"}
        | {"cache_targets"},
    ),
    "cache": (CacheSettings, EVERYWHERE | {"redis_url", "embedding_model"}),
    "inference": (
        InferenceSettings,
        EVERYWHERE
        | {"upstream_api_key", "upstream_api_key_file"}
        | {"nodes", "node_rank", "leader_address", "leader_port"},
    ),
}
SETTINGS_OF = {
    "gateway.settings": "gateway",
    "session.settings": "session",
    "worker.settings": "session",
    "cache.settings": "cache",
    "inference.pool.settings": "inference",
}

TEXT: Schema = {"type": "string"}
FREE: Schema = {"type": "object"}
LABELS: Schema = {"type": "object", "additionalProperties": TEXT}
OBJECTS: Schema = {"type": "array", "items": FREE}
NAMES: Schema = {"type": "array", "items": {"type": "string", "minLength": 1}}
COUNT: Schema = {"type": "integer", "minimum": 0}
AT_LEAST_ONE: Schema = {"type": "integer", "minimum": 1}
QUANTITY: Schema = {"anyOf": [{"type": "string", "minLength": 1}, {"type": "number"}]}
QUANTITIES: Schema = {"type": "object", "additionalProperties": QUANTITY}
RESOURCES: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"requests": QUANTITIES, "limits": QUANTITIES, "claims": OBJECTS},
}
AWAY: Schema = {"anyOf": [COUNT, {"type": "string", "pattern": "^[0-9]+%$"}]}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}


def one_of(*values: str) -> Schema:
    """Return the schema of a choice."""
    return {"enum": list(values)}


# What a value's default does not tell: the end of its path, and its schema. The first fits.
SHAPES: list[tuple[str, Schema]] = [
    ("image.pullPolicy", one_of("Always", "IfNotPresent", "Never")),
    ("image.pullSecrets", NAMES),
    ("log.level", one_of("debug", "info", "warning", "error")),
    ("log.format", one_of("json", "console")),
    ("telemetry.otlpEndpoint", {"type": "string", "pattern": "^(https?://[^/]+)?$"}),
    ("telemetry.traceSampleRatio", {"type": "number", "minimum": 0, "maximum": 1}),
    ("service.type", one_of("ClusterIP", "NodePort", "LoadBalancer")),
    ("service.port", PORT),
    ("weights.source", one_of("hub", "volume", "image")),
    ("weights.volume", FREE),
    ("weights.cache", FREE),
    ("cache.embeddingModelVolume", FREE),
    ("autoscaling.kind", one_of("none", "hpa", "keda")),
    ("autoscaling.targetCPUUtilizationPercentage", {**AT_LEAST_ONE, "maximum": 100}),
    ("podDisruptionBudget.maxUnavailable", AWAY),
    ("networkPolicy.gatewayFrom", OBJECTS),
    ("networkPolicy.metricsFrom", OBJECTS),
    ("networkPolicy.storesTo", OBJECTS),
    ("networkPolicy.inferenceEgress", OBJECTS),
    ("httpRoute.parentRefs", OBJECTS),
    ("httpRoute.hostnames", NAMES),
    ("ingress.hosts", NAMES),
    ("ingress.tls", OBJECTS),
    ("podDefaults.extraEnv", OBJECTS),
    ("podDefaults.extraEnvFrom", OBJECTS),
    ("podDefaults.extraVolumes", OBJECTS),
    ("podDefaults.extraVolumeMounts", OBJECTS),
    ("podDefaults.extraContainers", OBJECTS),
    ("podDefaults.initContainers", OBJECTS),
    ("podDefaults.tolerations", OBJECTS),
    ("podDefaults.affinity", FREE),
    (".behavior", FREE),
    (".resources", RESOURCES),
    (".nodeSelector", LABELS),
    (".annotations", LABELS),
    ("commonAnnotations", LABELS),
    (".labels", LABELS),
    ("commonLabels", LABELS),
    ("metrics.dashboardLabels", LABELS),
    ("rollingUpdate.maxSurge", AWAY),
    ("rollingUpdate.maxUnavailable", AWAY),
    (".nodes", {**AT_LEAST_ONE, "maximum": 64}),
    (".minReplicas", COUNT),
    (".maxReplicas", AT_LEAST_ONE),
    (".replicas", COUNT),
    (".gpus", COUNT),
    (".startupSeconds", AT_LEAST_ONE),
    ("autoscaling.target", {"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
    (".scaleDownSeconds", COUNT),
]


def camel(name: str) -> str:
    """Return a setting's name as the chart has it."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def settings_schema(service: str) -> Schema:
    """Return the schema of a service's settings, without those that the chart decides."""
    settings, decided = DECIDED[service]
    found = settings.model_json_schema()
    choices = found.get("$defs", {})
    properties = {
        camel(name): _plain(shape, choices)
        for name, shape in found["properties"].items()
        if name not in decided
    }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _plain(shape: Schema, choices: dict[str, Schema]) -> Schema:
    """Return a setting's schema without titles, and with what it refers to in its place."""
    referred = choices[shape["$ref"].rpartition("/")[2]] if "$ref" in shape else {}
    whole = {"enum": referred["enum"], **shape} if referred else shape
    return {key: value for key, value in whole.items() if key not in {"title", "$ref"}}


def comments(text: str) -> dict[str, str]:
    """Return what the comments of a values.yaml say, by dotted path."""
    told: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    said = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            said = stripped[5:]
        elif stripped.startswith("# ") and said:
            said = f"{said} {stripped[2:]}"
        elif found := re.match(r"( *)([A-Za-z][A-Za-z0-9]*):", line):
            indent = len(found[1])
            path = [(depth, key) for depth, key in path if depth < indent]
            path.append((indent, found[2]))
            if said:
                told[".".join(key for _, key in path)] = said
            said = ""
        else:
            said = ""
    return told


class Chart:
    """The chart's values, with what is said of them."""

    def __init__(self, text: str) -> None:
        self.values: dict[str, Any] = yaml.safe_load(text)
        self.told = comments(text)

    def schema(self) -> Schema:
        """Return the schema of all values."""
        whole = self._derive("", self.values)
        # What Helm itself puts among a chart's values.
        whole["properties"]["global"] = FREE
        return {"$schema": "http://json-schema.org/draft-07/schema#", **whole}

    def table(self) -> str:
        """Return the rows of README.md."""
        rows = ["| Value | Default | Meaning |", "|---|---|---|"]
        for path, value in self._leaves("", self.values):
            shown = json.dumps(value, ensure_ascii=False)
            rows.append(f"| `{path}` | `{shown}` | {self.told[path].replace('|', '/')} |")
        return "\n".join(rows)

    def _leaves(self, path: str, value: Any) -> Iterator[tuple[str, Any]]:
        if path in self.told or not isinstance(value, dict) or not value:
            if path not in self.told:
                raise SystemExit(f"values.yaml: say in a comment (# -- …) what {path} is")
            yield path, value
        else:
            for key, part in value.items():
                yield from self._leaves(f"{path}.{key}" if path else key, part)

    def _derive(self, path: str, value: Any) -> Schema:
        shape = self._shape(path, value)
        said = self.told.get(path)
        return {"description": said, **shape} if said else shape

    def _shape(self, path: str, value: Any) -> Schema:
        if path in SETTINGS_OF:
            return settings_schema(SETTINGS_OF[path])
        if path == "inference.pools":
            pool = self._derive("inference.pool", self.values["inference"]["pool"])
            return {
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"pattern": "^[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?$"},
                "additionalProperties": {"anyOf": [pool, {"type": "null"}]},
            }
        if path.endswith(".pod"):
            return self._derive("podDefaults", self.values["podDefaults"])
        for end, shape in SHAPES:
            if f".{path}".endswith(end if end.startswith(".") else f".{end}"):
                return shape
        return self._of_type(path, value)

    def _of_type(self, path: str, value: Any) -> Schema:
        match value:
            case bool():
                return {"type": "boolean"}
            case int():
                return {"type": "integer"}
            case float():
                return {"type": "number"}
            case str():
                return TEXT
            case dict() if value:
                parts = {
                    key: self._derive(f"{path}.{key}" if path else key, part)
                    for key, part in value.items()
                }
                return {"type": "object", "additionalProperties": False, "properties": parts}
        raise SystemExit(f"tools/chart_schema.py: say in SHAPES what {path} may hold")


def render() -> dict[Path, str]:
    """Return the files' texts."""
    chart = Chart((CHART / "values.yaml").read_text("utf-8"))
    readme = CHART / "README.md"
    head = readme.read_text("utf-8").split(MARK)[0]
    return {
        CHART / "values.schema.json": json.dumps(chart.schema(), indent=1) + "\n",
        readme: f"{head}{MARK}\n\n{chart.table()}\n",
    }


def main(arguments: list[str]) -> int:
    """Write the files, or compare them; the exit code."""
    wrong = 0
    for path, text in render().items():
        if "--check" not in arguments:
            path.write_text(text, "utf-8")
        elif not path.exists() or path.read_text("utf-8") != text:
            print(f"{path.name} is out of date: run `make docs` and commit it", file=sys.stderr)
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
