"""A plugin that vLLM loads in each of its processes (entry point ``vllm.general_plugins``).

vLLM ends its processes when it is shut down. When the process that holds it is killed they would
stay, with the model in memory and nobody to talk to.
"""

import multiprocessing
import os
import signal
import threading


def end_with_parent() -> None:
    """In a child process: end when the parent has. In the parent itself: nothing."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()
