from __future__ import annotations

from pathlib import Path

import pytest

from parley_devstack import bootstrap
from parley_devstack.config import StackConfig
from parley_devstack.errors import DevstackError
from parley_devstack.parts import Layout, lay_out
from parley_devstack.process import Plan


def test_an_empty_environment_is_one_of_each_on_vllm() -> None:
    config = StackConfig.from_environment({})
    assert (config.engine, config.port, config.auth) == ("vllm", 8080, "none")
    assert (config.gateways, config.sessions, config.caches, config.engines) == (1, 1, 1, 1)


def test_settings_are_read() -> None:
    config = StackConfig.from_environment(
        {"ENGINE": "sim", "PORT": "0", "SESSIONS": "3", "CACHES": "0", "AUTH": "keys"}
    )
    assert (config.engine, config.port, config.sessions) == ("sim", 0, 3)
    assert (config.caches, config.auth) == (0, "keys")


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(DevstackError) as caught:
        StackConfig.from_environment(
            {"ENGINE": "gpt", "PORT": "http", "SESSIONS": "0", "WORKERS": "many"}
        )
    assert str(caught.value).splitlines() == [
        "ENGINE=gpt: expected one of vllm, sim, openai.",
        "SESSIONS=0: expected a number from 1 to 16.",
        "WORKERS=many: expected a number from 0 to 16.",
        "PORT=http: expected a number from 0 to 65535.",
    ]


def plans_of(layout: Layout) -> dict[str, Plan]:
    return {plan.name: plan for plan in layout.plans()}


def test_stores_and_engines_come_first_and_gateways_last(tmp_path: Path) -> None:
    layout = lay_out(StackConfig.in_folder(tmp_path, sessions=2, gateways=2, engines=2))
    assert [[plan.name for plan in stage] for stage in layout.stages] == [
        ["valkey", "mongodb", "inference-1", "inference-2"],
        ["cache-1"],
        ["session-1", "session-2"],
        ["gateway-1", "gateway-2"],
    ]


def test_what_bears_that_others_are_not_there_yet_starts_with_them(tmp_path: Path) -> None:
    layout = lay_out(StackConfig.in_folder(tmp_path, spare={"session": 1}))
    assert list(layout.waves()) == [
        ["valkey", "mongodb", "inference-1", "cache-1"],
        ["session-1", "gateway-1"],
    ]


def test_every_part_has_addresses_of_its_own_and_is_told_those_of_others(tmp_path: Path) -> None:
    layout = lay_out(StackConfig.in_folder(tmp_path, sessions=2, spare={"session": 1}))
    plans = plans_of(layout)
    addresses = [a for plan in plans.values() for a in (plan.grpc, plan.http, plan.admin) if a]
    assert len(addresses) == len(set(addresses))
    assert layout.spare == {"session-3"}
    targets = plans["gateway-1"].env["PARLEY_GATEWAY_SESSION_TARGETS"]
    assert targets.split(",") == [plans[f"session-{n}"].grpc for n in (1, 2, 3)]
    session = plans["session-1"].env
    assert session["PARLEY_SESSION_INFERENCE_TARGETS"] == plans["inference-1"].grpc
    assert session["PARLEY_SESSION_LOG_REDIS_URL"] == f"redis://{plans['valkey'].http}/0"


def test_gateways_take_the_given_port_and_those_after_it(tmp_path: Path) -> None:
    layout = lay_out(StackConfig.in_folder(tmp_path, port=18080, gateways=2))
    assert layout.gateway_urls == ("http://127.0.0.1:18080", "http://127.0.0.1:18081")


def test_a_process_s_own_settings_win_over_its_kind_s(tmp_path: Path) -> None:
    env = {
        "session": {"PARLEY_SESSION_LOG_LEVEL": "debug", "X": "kind"},
        "session-2": {"X": "name"},
    }
    plans = plans_of(lay_out(StackConfig.in_folder(tmp_path, sessions=2, env=env)))
    assert plans["session-1"].env["X"] == "kind"
    assert plans["session-2"].env["X"] == "name"
    assert plans["session-2"].env["PARLEY_SESSION_LOG_LEVEL"] == "debug"


def test_stores_that_are_there_are_used_and_none_is_started(tmp_path: Path) -> None:
    config = StackConfig.in_folder(
        tmp_path, mongodb_uri="mongodb://db.example/", redis_url="redis://r.example/0", caches=0
    )
    plans = plans_of(lay_out(config))
    assert set(plans) == {"inference-1", "session-1", "gateway-1"}
    assert plans["session-1"].env["PARLEY_SESSION_MONGODB_URI"] == "mongodb://db.example/"
    assert plans["session-1"].env["PARLEY_SESSION_CACHE_TARGETS"] == ""


def test_make_run_tells_all_that_is_mistyped_before_it_begins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("ENGINE", "vlm"), ("PORT", "abc"), ("SESSIONS", "0")):
        monkeypatch.setenv(name, value)
    assert bootstrap.main(["--engine", "vlm", "--port", "abc"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "ENGINE=vlm: expected one of vllm, sim, openai.",
        "SESSIONS=0: expected a number from 1 to 16.",
        "PORT=abc: expected a number from 0 to 65535.",
    ]


def test_an_upstream_is_told_to_the_engines_that_stand_before_it(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-secret")
    config = StackConfig.from_environment(
        {"ENGINE": "openai", "UPSTREAM": "http://llm.example:8000", "UPSTREAM_KEY_FILE": str(key)}
    )
    assert config.upstream == "http://llm.example:8000/v1"
    env = plans_of(lay_out(config))["inference-1"].env
    assert env["PARLEY_INFERENCE_ENGINE"] == "openai"
    assert env["PARLEY_INFERENCE_UPSTREAM_URL"] == "http://llm.example:8000/v1"
    assert env["PARLEY_INFERENCE_UPSTREAM_API_KEY_FILE"] == str(key)


@pytest.mark.parametrize(
    ("environment", "mistake"),
    [
        ({"ENGINE": "openai"}, "UPSTREAM=: ENGINE=openai needs the server's address"),
        ({"ENGINE": "openai", "UPSTREAM": "llm:8000"}, "UPSTREAM=llm:8000: ENGINE=openai needs"),
        ({"ENGINE": "openai", "UPSTREAM": "http://me:pw@llm/v1"}, "needs the server's address"),
        ({"ENGINE": "sim", "UPSTREAM": "http://llm/v1"}, "only ENGINE=openai has an upstream"),
        (
            {"ENGINE": "openai", "UPSTREAM": "http://llm/v1", "UPSTREAM_KEY_FILE": "/no/such"},
            "UPSTREAM_KEY_FILE=/no/such: there is no such file",
        ),
    ],
)
def test_an_upstream_that_cannot_be_used_is_told(environment: dict[str, str], mistake: str) -> None:
    with pytest.raises(DevstackError, match=mistake):
        StackConfig.from_environment(environment)
