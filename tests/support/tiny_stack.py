"""A stack of small programs, to try the devstack's own doing without the platform.

python -m support.tiny_stack FOLDER [PORT]    runs it as `make run` would, until a signal
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rich.console import Console

from parley_devstack import stores
from parley_devstack.config import StackConfig
from parley_devstack.core import StackCore
from parley_devstack.parts import Layout
from parley_devstack.ports import LOOPBACK, free_ports
from parley_devstack.process import Plan
from parley_devstack.run import run

# Listens, has a child of its own, and ends on SIGTERM.
POLITE = """
import signal, socket, subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("serving", flush=True)
while True:
    server.accept()[0].close()
"""
STUBBORN = POLITE.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN")
# Says why and leaves, before it is ready.
BROKEN = "import sys; print('the reason', flush=True); sys.exit(7)"


def plan(folder: Path, name: str, kind: str, port: int, program: str) -> Plan:
    return Plan(
        name=name,
        kind=kind,
        command=(sys.executable, "-c", program, str(port)),
        env={"PATH": "/usr/bin:/bin"},
        log=folder / "logs" / f"{name}.log",
        cwd=folder,
        ready=lambda: stores.accepts(LOOPBACK, port),
        http=f"{LOOPBACK}:{port}",
    )


def tiny_core(folder: Path, *, port: int = 0, broken: bool = False) -> StackCore:
    ports = free_ports(4)
    gateway = plan(folder, "gateway-1", "gateway", port or ports[0], POLITE)
    stages = (
        (
            plan(folder, "store", "store", ports[1], POLITE),
            plan(folder, "engine-1", "engine", ports[2], STUBBORN),
        ),
        (plan(folder, "engine-2", "engine", ports[3], POLITE),),
        (plan(folder, "last", "gateway", ports[0], BROKEN) if broken else gateway,),
    )
    layout = Layout(stages, frozenset({"engine-2"}), (f"http://{gateway.http}",))
    config = StackConfig.in_folder(folder, start_seconds=20.0, stop_seconds=1.0)
    return StackCore(config, layout)


if __name__ == "__main__":
    chosen = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    core = tiny_core(Path(sys.argv[1]), port=chosen)
    sys.exit(run(core, Console(), time.monotonic()))
