"""``python -m parley_inference``: run one inference replica until SIGTERM.

Exit status: 0 stopped as asked, 2 wrong settings, 3 could not start, 4 the engine died.
"""

import sys

from parley_inference.bootstrap import Outcome, serve
from parley_inference.config import Settings
from parley_kit.config import load_settings
from parley_kit.logs import setup_logging
from parley_kit.process import run


def main() -> int:
    """Run a replica; returns the exit status."""
    settings = load_settings(Settings)
    setup_logging("parley-inference", settings.log_level, settings.log_format)
    outcome = Outcome()
    return run(lambda stop: serve(settings, stop, outcome)) or outcome.exit_code


# The engine's processes import this module under another name.
if __name__ == "__main__":
    sys.exit(main())
