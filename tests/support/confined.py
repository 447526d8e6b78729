"""What a container of the platform must not be able to do."""

# Run in one, whose process 1 is the service itself. Raises AssertionError.
_PROGRAM = """
import os, shutil
assert os.getuid() == 65532 and os.getgid() == 65532
assert b"parley_" in open("/proc/1/cmdline", "rb").read()
found = [tool for tool in ("pip", "pip3", "gcc", "cc", "make") if shutil.which(tool)]
assert not found, found
for folder in ("/", "/opt/parley", "/usr/local"):
    try:
        open(folder + "/written", "w")
    except OSError:
        continue
    raise AssertionError(folder + " can be written to")
open("/tmp/written", "w").close()
assert not os.path.exists("/var/run/secrets/kubernetes.io") or MAY_ASK
print("as it should be")
"""
AS_IT_SHOULD_BE = "as it should be"


def program(*, may_ask: bool = False) -> str:
    """A program that prints AS_IT_SHOULD_BE. `may_ask`: the API server, by a token of its own."""
    return _PROGRAM.replace("MAY_ASK", str(may_ask))
