"""What the chart's values can say: every setting of every service, and nothing else."""

import re
from typing import Any

import chart_schema
import pytest
import yaml
from chart_schema import CHART, DECIDED, SETTINGS_OF, Chart
from jsonschema_rs import Draft7Validator

CHART_TEXT = (CHART / "values.yaml").read_text("utf-8")


@pytest.fixture(name="schema", scope="module")
def _schema() -> Draft7Validator:
    return Draft7Validator(Chart(CHART_TEXT).schema())


def snake(name: str) -> str:
    """As the template does: sprig's `snakecase`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def nested(path: str, value: Any) -> dict[str, Any]:
    """Values that hold one value at a dotted path."""
    first, _, rest = path.partition(".")
    return {first: nested(rest, value) if rest else value}


def test_the_defaults_are_allowed(schema: Draft7Validator) -> None:
    schema.validate(yaml.safe_load(CHART_TEXT))


@pytest.mark.parametrize("path", SETTINGS_OF)
def test_every_setting_is_reached_or_decided_by_the_chart(path: str) -> None:
    service = SETTINGS_OF[path]
    settings, decided = DECIDED[service]
    reached = {snake(name) for name in chart_schema.settings_schema(service)["properties"]}
    assert reached | decided == set(settings.model_fields)
    assert not reached & decided


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("gatway.replicas", 2),
        ("gateway.replica", 2),
        ("gateway.replicas", "two"),
        ("gateway.settings.maxBodyByte", 2048),
        ("gateway.settings.maxBodyBytes", 1),
        ("gateway.settings.port", 80),
        ("session.settings.mongodbUri", "mongodb://user:password@host"),
        ("session.settings.leaseSeconds", 0.1),
        ("cache.settings.semantic", "perhaps"),
        ("inference.pools", {}),
        ("inference.pools.main.gpu", 1),
        ("inference.pools.Main", {}),
        ("inference.pools.main.settings.engine", "gpt"),
        ("inference.pools.main.autoscaling.kind", "cpu"),
        ("inference.pools.main.weights.source", "download"),
        ("gateway.podDisruptionBudget.maxUnavailable", "half"),
        ("gateway.resources.limit", {"memory": "1Gi"}),
        ("gateway.pod.nodeSelector", ["gpu"]),
        ("telemetry.otlpEndpoint", "collector:4317"),
        ("telemetry.traceSampleRatio", 2),
        ("gateway.service.port", 0),
    ],
)
def test_a_wrong_value_is_refused(schema: Draft7Validator, path: str, value: Any) -> None:
    assert not schema.is_valid(nested(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("gateway.settings.maxBodyBytes", 2048),
        ("worker.settings.maxLiveRuns", 8),
        ("inference.pools.small", {"settings": {"model": "m"}, "gpus": 0}),
        ("inference.pools.main", None),
        ("gateway.podDisruptionBudget.maxUnavailable", "50%"),
        ("gateway.pod.tolerations", [{"operator": "Exists"}]),
        ("cache.embeddingModelVolume", {"persistentVolumeClaim": {"claimName": "c"}}),
        ("global", {"anything": 1}),
    ],
)
def test_a_right_value_is_allowed(schema: Draft7Validator, path: str, value: Any) -> None:
    schema.validate(nested(path, value))


def test_no_default_holds_a_secret() -> None:
    values = yaml.safe_load(CHART_TEXT)
    secrets = [values["mongodb"], values["redis"], values["apiKeys"]]
    assert all(part["existingSecret"] == "" for part in secrets)
    assert not re.search(r"(?i)(password|token|secret)\w*: *[\"']?[a-z0-9]{8}", CHART_TEXT)


def test_a_key_that_nobody_explains_fails() -> None:
    with pytest.raises(SystemExit, match="say in a comment"):
        Chart("a: 1\n").table()


def test_a_comment_may_have_several_lines() -> None:
    assert chart_schema.comments("a:\n  # -- One,\n  # two.\n  b: 1\n") == {"a.b": "One, two."}
