"""Reference log-probabilities on disk, by content: the reference never changes, so each reply is scored once ever.

Shared by the seeds, splits and objectives of one data set. A key is a hash of the model's fingerprint, the precision,
the prompt and the reply.
"""

import hashlib
import sqlite3
from array import array
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from idiolect_training.fit.batch import Pair


class ReferenceCache:
    """Summed log-probabilities of (prompt, reply) under one model, in an SQLite file that runs may share."""

    def __init__(self, file: Path, fingerprint: str, precision: str) -> None:
        self._file = file
        self._model = f"{fingerprint} {precision}".encode()
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect()) as database, database:
            database.execute("CREATE TABLE IF NOT EXISTS logps (key BLOB PRIMARY KEY, logp REAL) WITHOUT ROWID")

    def read(self, pairs: Sequence[Pair]) -> Tensor:
        """(chosen, rejected) of each pair, [n, 2]; NaN where it is not known."""
        with closing(self._connect()) as database:
            find = "SELECT logp FROM logps WHERE key = ?"
            found = [[database.execute(find, (key,)).fetchone() for key in self._keys(pair)] for pair in pairs]
        values = [[float("nan") if row is None else row[0] for row in rows] for rows in found]
        return torch.tensor(values, dtype=torch.float32).reshape(-1, 2)

    def write(self, pairs: Sequence[Pair], logps: Tensor) -> None:
        """Keep logps [n, 2] of the pairs."""
        rows = [
            row
            for pair, values in zip(pairs, logps.tolist(), strict=True)
            for row in zip(self._keys(pair), values, strict=True)
        ]
        with closing(self._connect()) as database, database:
            database.executemany("INSERT OR REPLACE INTO logps VALUES (?, ?)", rows)

    def _keys(self, pair: Pair) -> tuple[bytes, bytes]:
        prompt = hashlib.blake2b(self._model, digest_size=16)
        prompt.update(array("q", (len(pair.prompt_ids), *pair.prompt_ids)).tobytes())
        keys = []
        for reply in (pair.chosen_ids, pair.rejected_ids):
            digest = prompt.copy()
            digest.update(array("q", reply).tobytes())
            keys.append(digest.digest())
        return keys[0], keys[1]

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._file, timeout=60)
