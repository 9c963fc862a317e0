"""A bundle's folder: only files that are known, regular and as their digests say; what is parsed is what was compared.

Between the check and the engine, which opens the weights again by their names, the folder could be changed by whoever
may write there. `Folder.check_unchanged`, asked after the engine has loaded them, notices that.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from idiolect.errors import BundleCorrupt, BundleMissing
from idiolect.files.document import brief

MANIFEST = "manifest.json"
BASIS = "basis.safetensors"
USERS = "users.safetensors"
QUESTIONS = "bank.jsonl"
TABLE = "bank.safetensors"
TRAINED_VOTES = "trained_votes.safetensors"
ADAPTER, MODEL = "adapter", "model"
ADAPTER_CONFIG = f"{ADAPTER}/adapter_config.json"
ADAPTER_TENSORS = f"{ADAPTER}/adapter_model.safetensors"
MODEL_CONFIG = f"{MODEL}/config.json"
MODEL_FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "*.spm", "*.tiktoken", "*.md", "LICENSE*")
"""What a model folder may hold: weights, tokenizer, template and words. No code, and nothing to unpickle."""
KNOWN = (
    *(BASIS, USERS),
    *(QUESTIONS, TABLE, TRAINED_VOTES),
    *(ADAPTER_CONFIG, ADAPTER_TENSORS),
    *(f"{MODEL}/{pattern}" for pattern in MODEL_FILES),
)
"""Every file that a bundle may hold besides its manifest."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
MAX_FILES = 1000
MAX_TENSOR_BYTES, MAX_TEXT_BYTES = 16 << 30, 64 << 20
"""Of a file that is read whole into memory: one of tensors, and any other."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Stamp = tuple[int, int, int, int]


class FileDigest(BaseModel):
    """What the manifest says of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    sha256: Digest
    n_bytes: int = Field(ge=0)


class Folder:
    """The files that a manifest names, each of which must be read or verified before the bundle counts."""

    def __init__(self, path: Path, digests: Mapping[str, FileDigest]) -> None:
        """Raises BundleMissing and BundleCorrupt when other files are there than the manifest names."""
        self.path = path
        self._digests = digests
        self._stamps: dict[str, Stamp] = {}
        if unknown := [name for name in sorted(digests) if not is_known(name)]:
            raise BundleCorrupt(f"{unknown[0]}: no file of a bundle", hint="docs/bundle-format.md lists them")
        found = set(listing(path))
        if missing := sorted(set(digests) - found):
            raise BundleMissing(f"{missing[0]}: named by the manifest, not there")
        if extra := sorted(found - set(digests)):
            raise BundleCorrupt(f"{brief(extra[0])}: not named by the manifest")

    @classmethod
    def as_it_is(cls, path: Path) -> Self:
        """What lies there now, whatever a manifest says. Raises BundleCorrupt."""
        return cls(path, {name: digest(path / name) for name in listing(path)})

    def moved(self, path: Path) -> Self:
        """The same files, after the folder was renamed."""
        self.path = path
        return self

    def require(self, needed: Iterable[str], optional: Iterable[str] = ()) -> None:
        """Raises BundleCorrupt when the manifest names less than `needed`, or what is not in `optional` either."""
        named, needed = set(self._digests), set(needed)
        if absent := sorted(needed - named):
            raise BundleCorrupt(f"{MANIFEST}: names no {absent[0]}")
        if more := sorted(named - needed - set(optional)):
            raise BundleCorrupt(f"{more[0]}: not of the kind of bundle that the manifest describes")

    def names(self, below: str) -> list[str]:
        """The files in one of the folders, sorted."""
        return sorted(name for name in self._digests if name.startswith(f"{below}/"))

    def read(self, name: str) -> bytearray:
        """The content of a file, compared with its digest. Raises BundleCorrupt, BundleMissing."""
        limit = MAX_TENSOR_BYTES if name.endswith(".safetensors") else MAX_TEXT_BYTES
        with self._opened(name) as file:
            content = read_open(file, name, limit)
        if hashlib.sha256(content).hexdigest() != self._digests[name].sha256:
            raise _differs(name)
        return content

    @contextmanager
    def verified(self, name: str) -> Iterator[BufferedReader]:
        """A file compared with its digest, open at its start, for files too large for the memory.

        Raises BundleCorrupt, BundleMissing.
        """
        with self._opened(name) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != self._digests[name].sha256:
                raise _differs(name)
            file.seek(0)
            yield file

    def verify_rest(self) -> None:
        """Compare what nobody has read yet. Raises BundleCorrupt, BundleMissing."""
        for name in sorted(set(self._digests) - set(self._stamps)):
            with self.verified(name):
                pass

    def check_unchanged(self) -> None:
        """Raises BundleCorrupt when a file is another one, was written to, or came in, since all were compared."""
        if more := sorted(set(listing(self.path)) - set(self._digests)):
            raise BundleCorrupt(f"{brief(more[0])}: came while the bundle was being loaded", hint="start again")
        for name, stamp in self._stamps.items():
            try:
                same = _stamp((self.path / name).lstat()) == stamp
            except OSError:
                same = False
            if not same:
                raise BundleCorrupt(f"{name}: changed while it was being loaded", hint="start again")

    @contextmanager
    def _opened(self, name: str) -> Iterator[BufferedReader]:
        with open_regular(self.path / name, name) as file:
            found = os.fstat(file.fileno())
            if found.st_size != self._digests[name].n_bytes:
                raise _differs(name)
            yield file
            self._stamps[name] = _stamp(found)


def is_known(name: str) -> bool:
    """Whether a bundle may hold a file of that name."""
    return NAME.fullmatch(name) is not None and any(fnmatchcase(name, pattern) for pattern in KNOWN)


def listing(path: Path) -> list[str]:
    """Every file in a bundle's folder except the manifest, as sorted relative names.

    Raises BundleCorrupt for a link, for what is neither file nor folder, and for a folder that no bundle has.
    """
    names = []
    for below in ("", f"{ADAPTER}/", f"{MODEL}/"):
        if below and not (path / below).is_dir():
            continue
        for entry in _entries(path / below):
            name = below + entry.name
            if entry.is_dir(follow_symlinks=False) and name in (ADAPTER, MODEL):
                continue
            if not entry.is_file(follow_symlinks=False):
                raise BundleCorrupt(f"{brief(name)}: not a regular file")
            names.append(name)
    return sorted(name for name in names if name != MANIFEST)


def digest(path: Path) -> FileDigest:
    """Of a file as it is. Raises OSError."""
    with path.open("rb") as file:
        return FileDigest(sha256=hashlib.file_digest(file, "sha256").hexdigest(), n_bytes=path.stat().st_size)


@contextmanager
def open_regular(path: Path, name: str) -> Iterator[BufferedReader]:
    """A regular file, open for reading. Raises BundleMissing, and BundleCorrupt for a link, a device, a pipe."""
    try:
        # Not blocking: to open a pipe would wait for its writer.
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleMissing(f"{name}: no such file") from error
    except OSError as error:
        raise BundleCorrupt(f"{name}: not a regular file that can be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise BundleCorrupt(f"{name}: not a regular file")
    with os.fdopen(number, "rb") as file:
        try:
            yield file
        except OSError as error:
            raise BundleCorrupt(f"{name}: cannot be read: {error.strerror}") from error


def read_open(file: BufferedReader, name: str, at_most: int) -> bytearray:
    """The whole of an open file. Raises BundleCorrupt when it is larger than `at_most` bytes."""
    n_bytes = os.fstat(file.fileno()).st_size
    if n_bytes > at_most:
        raise BundleCorrupt(f"{name}: larger than {at_most} bytes")
    content = bytearray(n_bytes)
    if file.readinto(content) != n_bytes or file.read(1):
        raise BundleCorrupt(f"{name}: changed while it was read")
    return content


def _entries(path: Path) -> list[os.DirEntry[str]]:
    found = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                found.append(entry)
                if len(found) > MAX_FILES:
                    raise BundleCorrupt(f"{path.name}: more than {MAX_FILES} files")
    except OSError as error:
        raise BundleCorrupt(f"{path.name}: cannot be listed: {error.strerror}") from error
    return found


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _differs(name: str) -> BundleCorrupt:
    return BundleCorrupt(f"{name}: differs from its digest", hint="copy the bundle again")
