"""The server behind `ENGINE=openai`: looked at before anything is started."""

from __future__ import annotations

from dataclasses import replace

import httpx

from parley_devstack.config import StackConfig
from parley_devstack.errors import PreflightError

LOOK_SECONDS = 10.0


def look_at_upstream(config: StackConfig) -> StackConfig:
    """Returns the config with the model to ask for, the upstream's first one if none is named.

    Raises PreflightError where the upstream does not list its models.
    """
    if config.engine != "openai":
        return config
    listed = _models(config)
    if config.model:
        return config
    if not listed:
        raise PreflightError(f"{config.upstream} lists no model: name one with MODEL=.")
    return replace(config, model=listed[0])


def _models(config: StackConfig) -> list[str]:
    headers = {}
    if config.upstream_key_file is not None:
        headers["Authorization"] = f"Bearer {config.upstream_key_file.read_text('utf-8').strip()}"
    url = f"{config.upstream}/models"
    try:
        # Not through a proxy, as the engine's own requests are not.
        response = httpx.get(url, headers=headers, timeout=LOOK_SECONDS, trust_env=False)
    except httpx.HTTPError as error:
        raise PreflightError(
            f"Nothing that speaks HTTP answers at {url} ({type(error).__name__}).",
            "Start the server, or correct UPSTREAM=.",
        ) from error
    if response.status_code in {401, 403}:
        raise PreflightError(
            f"{config.upstream} does not accept the key ({response.status_code}).",
            "Put it into a file and name that: UPSTREAM_KEY_FILE=.",
        )
    try:
        return [str(entry["id"]) for entry in response.raise_for_status().json()["data"]]
    except (httpx.HTTPStatusError, ValueError, KeyError, TypeError) as error:
        raise PreflightError(
            f"{url} is no list of models ({response.status_code}).",
            "UPSTREAM= is the address up to `/chat/completions`, as http://host:8000/v1.",
        ) from error
