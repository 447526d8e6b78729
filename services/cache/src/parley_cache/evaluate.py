"""`python -m parley_cache.evaluate`: measures the cache's verdict on labelled pairs."""

from __future__ import annotations

import sys

from parley_cache.semantic.evaluation.cli import main

if __name__ == "__main__":
    sys.exit(main())
