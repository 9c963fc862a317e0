"""Changes of a folder: a file gone, elsewhere, a link, a pipe, a socket, a folder; or something beside it."""

import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

TARGETS = ("/etc/hostname", "/dev/zero", "/dev/urandom", "nowhere", ".", "..")
EXTRAS = ("more.bin", "adapter_model.bin", "code.py", ".hidden", "x.safetensors", "README", "\udcff", "_", "a\nb")
FOLDERS = ("extra", "model", "adapter", "__pycache__", ".git")


def other_file(file: Path, rng: random.Random) -> None:
    """One of these, at random."""
    rng.choice(FILE_CHANGES)(file, rng)


def _gone(file: Path, rng: random.Random) -> None:
    file.unlink()


def _renamed(file: Path, rng: random.Random) -> None:
    file.rename(file.with_name(file.name.upper()))


def _link(file: Path, rng: random.Random) -> None:
    file.unlink()
    file.symlink_to(rng.choice((*TARGETS, file.name)))


def _link_to_itself(file: Path, rng: random.Random) -> None:
    """The right content, elsewhere: outside the bundle, or beside the file."""
    aside = rng.choice((file.parent.parent, file.parent)) / f"aside-{rng.randrange(10**9)}"
    shutil.move(file, aside)
    file.symlink_to(aside)


def _pipe(file: Path, rng: random.Random) -> None:
    file.unlink()
    os.mkfifo(file)


def _socket(file: Path, rng: random.Random) -> None:
    file.unlink()
    folder = os.open(file.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{folder}/{file.name}")  # the path of a socket is short
    os.close(folder)


def _folder_instead(file: Path, rng: random.Random) -> None:
    file.unlink()
    file.mkdir()


def _more(file: Path, rng: random.Random) -> None:
    (file.parent / rng.choice(EXTRAS)).write_bytes(b"x")


def _folder(file: Path, rng: random.Random) -> None:
    (file.parent / rng.choice(FOLDERS)).mkdir(exist_ok=True)


def _linked_folder(file: Path, rng: random.Random) -> None:
    (file.parent / "extra").symlink_to(rng.choice(("/etc", ".", "..", "/nowhere")))


def _parent_linked(file: Path, rng: random.Random) -> None:
    """The folder of the adapter or of the model lies elsewhere."""
    folder = file.parent if file.parent.name in ("adapter", "model") else None
    if folder is None:
        return _linked_folder(file, rng)
    elsewhere = folder.parent.parent / f"elsewhere-{rng.randrange(10**9)}"
    shutil.move(folder, elsewhere)
    folder.symlink_to(elsewhere)


def _hard_link(file: Path, rng: random.Random) -> None:
    os.link(file, file.parent / rng.choice(EXTRAS))


FILE_CHANGES: tuple[Callable[[Path, random.Random], None], ...] = (
    *(_gone, _renamed, _link, _link_to_itself, _pipe, _socket, _folder_instead),
    *(_more, _folder, _linked_folder, _parent_linked, _hard_link),
)
