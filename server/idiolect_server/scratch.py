"""Temporary files of one server and its children, in a folder that goes with it, also when the server is killed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
LONGEST = 45
"""Of the folder above: names of sockets, which end up to 62 characters behind it, are limited to 107 (unix(7))."""


@contextmanager
def scratch() -> Iterator[Path]:
    """A new folder as TMPDIR of this process and of those that it starts, removed on the way out."""
    before = os.environ.get("TMPDIR")
    above = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix=_prefix(os.getpid()), dir=above if len(above) <= LONGEST else "/tmp"))
    _use(str(folder))
    try:
        yield folder
    finally:
        _use(before)
        shutil.rmtree(folder, ignore_errors=True)


def sweep(server_pid: int) -> None:
    """Called by a child of a server that was killed: remove what that server can remove no more."""
    folder = Path(os.environ.get("TMPDIR", ""))
    if folder.name.startswith(_prefix(server_pid)):
        shutil.rmtree(folder, ignore_errors=True)
    for pid in (server_pid, os.getpid()):  # neither comes to the end at which its OpenMP would do this
        for left in SHARED_MEMORY.glob(f"__KMP_REGISTERED_LIB_{pid}_*"):
            with suppress(OSError):
                left.unlink()


def _prefix(pid: int) -> str:
    return f"idiolect-{pid}-"


def _use(folder: str | None) -> None:
    if folder is None:
        del os.environ["TMPDIR"]
    else:
        os.environ["TMPDIR"] = folder
    tempfile.tempdir = None  # which it keeps otherwise
