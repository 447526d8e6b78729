"""A mistake in the settings is one sentence; the value is never shown."""

from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from parley_kit.config import RpcServiceSettings, ServiceSettings, load_settings, settings_table

SECRET = "hunter2-hunter2"


class Settings(ServiceSettings):
    """A service's settings."""

    model_config = SettingsConfigDict(env_prefix="PARLEY_TRIED_")

    port: int = Field(default=50099, ge=0, le=65535, description="Port to serve on.")
    uri: SecretStr = Field(description="Where | the store is.")
    tries: int = Field(default=3, ge=1, le=9, description="Tries.")
    colours: list[str] = Field(default=["red"], description="Colours, as JSON.")


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("PARLEY_TRIED_URI", f"redis://:{SECRET}@store")
    return monkeypatch


def refused(capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(SystemExit) as exit_:
        load_settings(Settings)
    assert exit_.value.code == 2
    captured = capsys.readouterr()
    assert SECRET not in captured.err
    assert captured.out == ""
    return captured.err.splitlines()


def test_settings_are_read_and_do_not_show_their_secrets(env: pytest.MonkeyPatch) -> None:
    env.setenv("PARLEY_TRIED_TRIES", "5")
    settings = load_settings(Settings)
    assert settings.tries == 5
    assert settings.port == 50099
    assert settings.uri.get_secret_value().endswith("@store")
    assert SECRET not in repr(settings)


def test_each_wrong_variable_has_a_line_with_its_name(
    env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    env.delenv("PARLEY_TRIED_URI")
    env.setenv("PARLEY_TRIED_TRIES", "10")
    env.setenv("PARLEY_TRIED_PORT", SECRET)
    env.setenv("PARLEY_TRIED_LOG_FORMAT", SECRET)
    env.setenv("PARLEY_TRIED_OTLP_ENDPOINT", SECRET)
    lines = refused(capsys)
    assert sorted(line.partition(":")[0] for line in lines) == [
        "PARLEY_TRIED_LOG_FORMAT",
        "PARLEY_TRIED_OTLP_ENDPOINT",
        "PARLEY_TRIED_PORT",
        "PARLEY_TRIED_TRIES",
        "PARLEY_TRIED_URI",
    ]
    assert "PARLEY_TRIED_URI: is required" in lines
    assert "PARLEY_TRIED_TRIES: input should be less than or equal to 9" in lines


def test_a_list_that_is_not_json_is_told_in_a_line(
    env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    env.setenv("PARLEY_TRIED_COLOURS", SECRET)
    assert refused(capsys) == ["PARLEY_TRIED_COLOURS: must be JSON"]


def test_a_misspelt_variable_is_an_error_that_names_the_nearest(
    env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    env.setenv("PARLEY_TRIED_ADMIN_PROT", SECRET)
    env.setenv("PARLEY_OTHER_PORT", "not ours to judge")
    assert refused(capsys) == [
        "PARLEY_TRIED_ADMIN_PROT: there is no such setting; did you mean PARLEY_TRIED_ADMIN_PORT?"
    ]


def test_kubernetes_service_links_are_told_from_misspellings(
    env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    env.setenv("PARLEY_TRIED_PORT", "tcp://10.0.0.1:50099")
    env.setenv("PARLEY_TRIED_SERVICE_HOST", "10.0.0.1")
    env.setenv("PARLEY_TRIED_PORT_50099_TCP_ADDR", "10.0.0.1")
    lines = refused(capsys)
    assert len(lines) == 3
    assert all("enableServiceLinks: false" in line for line in lines)


def test_the_table_names_variable_bounds_default_and_meaning() -> None:
    table = settings_table(Settings)
    assert "| `PARLEY_TRIED_TRIES` | int, ≥ 1, ≤ 9 | `3` | Tries. |" in table
    assert "| `PARLEY_TRIED_URI` | secret | required | Where \\| the store is. |" in table
    assert "| `PARLEY_TRIED_LOG_FORMAT` | `json` or `console` | `json` |" in table
    assert '| `PARLEY_TRIED_OTLP_ENDPOINT` | str, length ≤ 2048 | `""` |' in table
    assert len(table.splitlines()) == 2 + len(Settings.model_fields)


def test_every_common_setting_is_documented() -> None:
    assert all(info.description for info in ServiceSettings.model_fields.values())


CA, CERTIFICATE, KEY = "TLS_CA_FILE", "TLS_CERTIFICATE_FILE", "TLS_KEY_FILE"


class Serving(RpcServiceSettings):
    """Settings of a service that serves and calls nobody."""

    model_config = SettingsConfigDict(env_prefix="PARLEY_TRIED_")
    TLS_CALLS: ClassVar[bool] = False


@pytest.mark.parametrize(
    ("cls", "mode", "given", "said"),
    [
        (ServiceSettings, "server", (), "TLS=server needs TLS_CA_FILE"),
        (ServiceSettings, "mutual", (CA,), f"TLS=mutual needs {CERTIFICATE} and {KEY}"),
        (Serving, "server", (CA, KEY), f"TLS=server needs {CERTIFICATE}"),
        (Serving, "off", (CERTIFICATE,), f"{CERTIFICATE} is set and TLS is off"),
    ],
)
def test_certificates_that_are_missing_or_unused_are_told(
    cls: type[ServiceSettings], mode: str, given: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        cls.model_validate({"tls": mode, **{name.lower(): Path("/some.pem") for name in given}})


@pytest.mark.parametrize(
    ("cls", "mode", "given", "shows"),
    [
        (ServiceSettings, "server", (CA,), False),
        (ServiceSettings, "mutual", (CA, CERTIFICATE, KEY), True),
        (Serving, "server", (CA, CERTIFICATE, KEY), True),
        (Serving, "mutual", (CA, CERTIFICATE, KEY), True),
    ],
)
def test_a_certificate_is_shown_where_somebody_asks_for_one(
    cls: type[ServiceSettings], mode: str, given: tuple[str, ...], shows: bool
) -> None:
    named = {name.lower(): Path("/some.pem") for name in given}
    files = cls.model_validate({"tls": mode, **named}).tls_files
    assert files is not None
    assert (files.certificate is not None) is shows
    assert ServiceSettings().tls_files is None
