"""Makes, lists and revokes API keys in a key file.

::

    python -m parley_gateway.keys create --tenant T [--user U] --file F
    python -m parley_gateway.keys list --file F
    python -m parley_gateway.keys revoke --id ID --file F

``create`` prints the key once; the file keeps its hash only. A running gateway
re-reads the file by itself.
"""

import argparse
import fcntl
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from parley_gateway.access.keyring import (
    BadKeyFile,
    KeyRecord,
    dump_key_file,
    load_key_file,
    new_key,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.run
    try:
        return command(options)
    except BadKeyFile as error:
        return _fail(f"{options.file}: {error}")
    except OSError as error:
        return _fail(f"{options.file}: {error.strerror or error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="parley_gateway.keys", description="API keys")
    commands = parser.add_subparsers(required=True)
    create = commands.add_parser("create", help="make a key and print it, once")
    create.add_argument("--tenant", required=True, help="letters, digits, . _ -; at most 64")
    create.add_argument("--user", help="fix the key to one user")
    create.set_defaults(run=_create)
    listing = commands.add_parser("list", help="list the keys, without their secrets")
    listing.set_defaults(run=_list)
    revoke = commands.add_parser("revoke", help="remove a key")
    revoke.add_argument("--id", required=True, help="the key's id, as list shows it")
    revoke.set_defaults(run=_revoke)
    for command in (create, listing, revoke):
        command.add_argument("--file", required=True, type=Path, help="the key file")
    return parser


def _create(options: argparse.Namespace) -> int:
    try:
        key, record = new_key(options.tenant, options.user)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        return _fail(f"--{first['loc'][0]}: {first['msg']}")
    with _locked(options.file) as path:
        records = load_key_file(path) if path.exists() else []
        _replace(path, [*records, record])
    sys.stdout.write(f"{key}\n")
    return 0


def _list(options: argparse.Namespace) -> int:
    for record in load_key_file(options.file):
        user = record.user if record.user is not None else "(any user)"
        sys.stdout.write(f"{record.id}  {record.tenant}  {user}  {record.created_at}\n")
    return 0


def _revoke(options: argparse.Namespace) -> int:
    with _locked(options.file) as path:
        records = load_key_file(path)
        kept = [record for record in records if record.id != options.id]
        if len(kept) == len(records):
            return _fail(f"{options.file}: there is no key {options.id!r}")
        _replace(path, kept)
    return 0


@contextmanager
def _locked(file: Path) -> Iterator[Path]:
    """Keep other commands away from the file meanwhile; yields it with links followed."""
    path = file.resolve()
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path


def _replace(path: Path, records: Sequence[KeyRecord]) -> None:
    """Write the file whole or not at all, readable by its owner only."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(dump_key_file(records))
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o777)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _fail(sentence: str) -> int:
    sys.stderr.write(f"{sentence}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
