"""The life of a service's process: event loop, signals, exit codes.

========  ==================================================================
code      meaning
========  ==================================================================
0         stopped as asked: ``main`` returned
1         a defect: an exception that nobody expected, logged
2         wrong settings (``parley_kit.config``)
3         could not start, a port in use for one: a sentence on stderr
130, 143  a second SIGINT or SIGTERM came before ``main`` had returned
========  ==================================================================
"""

import asyncio
import errno
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from parley_kit.errors import StartupError

_log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> int:
    """Run ``main`` on uvloop and return the exit code.

    The event given to ``main`` is set by the first SIGTERM or SIGINT; ``main``
    then ends what it does, within a grace period of its own. A second signal
    ends the process at once. Call as ``sys.exit(run(main))``.
    """
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_supervise(main))
    except StartupError as error:
        return _refuse(str(error), error.exit_code)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _refuse(f"cannot listen: {error.strerror or error}", StartupError.exit_code)
        _log.critical("the process ends on an unexpected error", exc_info=True)
        return 1
    except Exception:  # noqa: BLE001 - the last line of the process
        _log.critical("the process ends on an unexpected error", exc_info=True)
        return 1
    return 0


async def _supervise(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            _leave_at_once(number)
        _log.info("stopping", extra={"signal": number.name})
        stop.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        await main(stop)
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


def _leave_at_once(number: signal.Signals) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(128 + number)


def _refuse(sentence: str, code: int) -> int:
    print(sentence, file=sys.stderr)  # noqa: T201 - for the one who started it
    return code
