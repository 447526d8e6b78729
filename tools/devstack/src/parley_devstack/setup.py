"""What a stack needs before it can start: environments, Java parts, the models."""

from __future__ import annotations

import os

from rich.console import Console

from parley_devstack import stores
from parley_devstack.board import Steps
from parley_devstack.config import StackConfig
from parley_devstack.embedding_model import is_wanted, make_embedding_model
from parley_devstack.environments import inference, is_current, make
from parley_devstack.errors import SetupError
from parley_devstack.java import fetch_jars
from parley_devstack.models import make_model
from parley_devstack.preflight import has_gpu


def set_up(config: StackConfig, console: Console) -> None:
    """Makes what is missing; when nothing is, takes a moment. Raises SetupError."""
    paths, steps = config.paths, Steps(console)
    if not config.mongodb_uri and stores.mongod_path() is None:
        fetch_jars(
            paths.jars,
            on_progress=lambda what: console.print(f"  MongoDB stand-in: {what}", highlight=False),
        )
    if is_wanted(os.environ):
        try:
            make_embedding_model(paths, steps)
        except SetupError as error:
            # The cache does without; what the stack cannot do without comes next.
            console.print(str(error), markup=False, highlight=False)
            console.print("  The cache will match questions word by word, not by meaning.")
    if config.engine == "vllm":
        environment = inference(paths, gpu=has_gpu())
        if not is_current(environment, paths):
            make(environment, paths, steps)
        if not config.model:
            make_model(paths, steps)
