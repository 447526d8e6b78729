"""The API server, as far as discovery needs it: list and watch the EndpointSlices of a Service.

Blocking: for a thread. Foreign errors become `Away` or `Gone` here. The `kubernetes` package
is imported on connecting: it takes a second and much memory, which nobody should pay for who
names engines in another way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from parley_session.fleet.endpoint_slices import Slice

SERVICE_LABEL = "kubernetes.io/service-name"
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_GONE = 410

Event = Mapping[str, Any]


class Away(Exception):
    """The API server did not give what was asked for; a sentence without addresses."""


class Gone(Exception):
    """The API server has forgotten the version to go on from."""


@dataclass(frozen=True, slots=True)
class ApiTimes:
    """Bounds of its calls, seconds."""

    connect: float = 5.0
    listing: float = 20.0
    # A watch ends after so long, and is asked for anew.
    window: float = 60.0
    # Silence beyond the window after which the API server is held for away.
    grace: float = 10.0


class SlicesApi(Protocol):
    """One connection; used by one thread, but for `interrupt`."""

    def list(self) -> tuple[list[Slice], str]:
        """Return all slices of the Service, and their version. Raises Away."""

    def watch(self, version: str) -> Iterator[Event]:
        """Yield what has changed since, until the window ends. Raises Away, Gone."""

    def interrupt(self) -> None:
        """End a watch that another thread is in."""


class _Response(Protocol):
    status: int
    data: bytes

    def stream(self, amt: int | None = ...) -> Iterator[bytes]: ...

    def shutdown(self) -> None: ...

    def close(self) -> None: ...

    def release_conn(self) -> None: ...


class KubernetesSlices:
    """Implements `SlicesApi` as the Pod's service account, or as KUBECONFIG says.

    `namespace`: empty means the Pod's own. Raises Away when there is no configuration.
    """

    def __init__(self, service: str, namespace: str, times: ApiTimes) -> None:
        from kubernetes import client, config
        from urllib3.exceptions import HTTPError

        self._selector = f"{SERVICE_LABEL}={service}"
        self._namespace = namespace or _own_namespace()
        self._times = times
        self._response: _Response | None = None
        settings = client.Configuration()
        load: Any = (
            config.load_incluster_config if _OWN_NAMESPACE.exists() else config.load_kube_config
        )
        try:
            load(client_configuration=settings)
        except config.ConfigException as error:
            raise Away("there is no configuration: no service account, no KUBECONFIG") from error
        # Trying again is decided by the caller.
        settings.retries = False
        # Without preloading it gives urllib3's responses, which its types do not say.
        self._api: Any = client.DiscoveryV1Api(client.ApiClient(settings))
        self._foreign = (client.ApiException, HTTPError, OSError)

    def list(self) -> tuple[list[Slice], str]:
        """See `SlicesApi.list`."""
        response = self._ask(self._times.listing)
        try:
            listed = json.loads(response.data)
            return listed.get("items") or [], listed["metadata"]["resourceVersion"]
        except (*self._foreign, ValueError, KeyError, TypeError) as error:
            raise Away(f"its list could not be read: {type(error).__name__}") from error
        finally:
            response.release_conn()

    def watch(self, version: str) -> Iterator[Event]:
        """See `SlicesApi.watch`."""
        window = self._times.window
        response = self._ask(
            window + self._times.grace,
            watch=True,
            allow_watch_bookmarks=True,
            resource_version=version,
            timeout_seconds=max(1, round(window)),
        )
        self._response = response
        try:
            for line in _lines(response):
                event: Event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _failure(event["object"].get("code"))
                yield event
        except (*self._foreign, ValueError, KeyError, TypeError) as error:
            raise Away(f"its watch broke: {type(error).__name__}") from error
        finally:
            self._response = None
            response.close()
            response.release_conn()

    def interrupt(self) -> None:
        """See `SlicesApi.interrupt`."""
        response = self._response
        if response is not None:
            try:
                response.shutdown()
            except (OSError, ValueError, RuntimeError):
                # It has just ended by itself.
                return

    def _ask(self, read_timeout: float, **options: Any) -> _Response:
        try:
            response: _Response = self._api.list_namespaced_endpoint_slice(
                self._namespace,
                label_selector=self._selector,
                _preload_content=False,
                _request_timeout=(self._times.connect, read_timeout),
                **options,
            )
        except self._foreign as error:
            raise Away(f"it could not be asked: {type(error).__name__}") from error
        if response.status != 200:
            response.close()
            response.release_conn()
            raise _failure(response.status)
        return response


def _own_namespace() -> str:
    try:
        return _OWN_NAMESPACE.read_text(encoding="utf-8").strip()
    except OSError:
        return "default"


def _failure(status: Any) -> Exception:
    return Gone() if status == _GONE else Away(f"it answered {status}")


def _lines(response: _Response) -> Iterator[bytes]:
    rest = b""
    for piece in response.stream(None):
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line for line in lines if line)
