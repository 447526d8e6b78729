"""Writes docs/api/openapi.json: ``python -m parley_gateway.openapi [--check]``."""

import json
import sys
from pathlib import Path

from parley_gateway.access.credentials import NoAuthentication
from parley_gateway.app import build_api, document
from parley_gateway.clients.session import SessionClient, session_replicas
from parley_gateway.config import GatewaySettings
from parley_gateway.documents import main_for
from parley_gateway.routes.fleet import FleetRoutes
from parley_kit.replicas import StaticResolver


def render() -> str:
    """Return the document of an application that serves nobody."""
    session = SessionClient(session_replicas(StaticResolver(())), timeout_seconds=1.0)
    app = build_api(GatewaySettings(), NoAuthentication(), session, FleetRoutes(session))
    return json.dumps(document(app), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.exit(main_for(Path("docs/api/openapi.json"), render, sys.argv[1:]))
