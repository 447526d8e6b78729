"""Locust, without the patching of the standard library that comes with importing it.

That belongs to a load generator's process; here it would change sockets and threads under
every other test.
"""

import os

os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"
try:
    import locust.stats  # noqa: F401
finally:
    # Not for processes that tests start.
    del os.environ["LOCUST_SKIP_MONKEY_PATCH"]
