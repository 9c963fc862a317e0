"""Changed bundles, drawn at random: tensors, JSON, files. Each is a name and what it does to a folder.

Most are sealed afterwards: their digests fit, so that nothing but a look at the contents can notice them.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.hostile.changes.files import other_file
from bench.hostile.changes.sealing import reseal, reseal_manifest
from bench.hostile.changes.tensors import other_header, other_numbers, other_whole
from bench.hostile.changes.texts import other_bytes, other_config, other_text, other_value
from idiolect.files.folder import MANIFEST

SEALED = 0.85
"""Share of the changes after which the digests are made to fit."""
TENSORS, TEXTS, CONFIGS, ANY = "*.safetensors", "*.json*", "*config.json", "*"
KINDS: tuple[tuple[Callable[[Path, random.Random], None], str, int], ...] = (
    (other_numbers, TENSORS, 6),
    (other_header, TENSORS, 4),
    (other_whole, TENSORS, 2),
    (other_value, TEXTS, 4),
    (other_value, MANIFEST, 6),
    (other_text, TEXTS, 3),
    (other_config, CONFIGS, 2),
    (other_file, ANY, 4),
    (other_bytes, ANY, 2),
)
"""What is done, to which files, and how often beside the others."""

Change = Callable[[Path], None]


@dataclass(frozen=True)
class Mutant:
    """`seal` makes the digests fit after the change."""

    name: str
    change: Change
    seal: Change | None = reseal

    def make(self, bundle: Path) -> None:
        """Change the bundle in this folder."""
        self.change(bundle)
        if self.seal is not None:
            self.seal(bundle)


def mutants(bundle: Path, rng: random.Random) -> Iterator[Mutant]:
    """Without end: changes of the bundle in this folder, which is not touched."""
    files = sorted(file.relative_to(bundle) for file in bundle.rglob("*") if file.is_file())
    kinds = [(change, named, often) for change, named, often in KINDS if any(file.match(named) for file in files)]
    while True:
        change, named, _ = rng.choices(kinds, [often for *_, often in kinds])[0]
        file, seed = rng.choice([file for file in files if file.match(named)]), rng.randrange(2**32)
        # What the manifest says of files stays as it was changed.
        seal = reseal_manifest if file.name == MANIFEST else reseal
        sealed = rng.random() < SEALED
        name = f"{change.__name__} of {file}, seed {seed}{', sealed' if sealed else ''}"
        yield Mutant(name, _of(change, file, seed), seal if sealed else None)


def _of(change: Callable[[Path, random.Random], None], file: Path, seed: int) -> Change:
    return lambda folder: change(folder / file, random.Random(seed))
