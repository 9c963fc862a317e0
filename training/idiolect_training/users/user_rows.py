"""Per-user numbers that cost only what a batch touches: one row per user, with its own Adam state.

A dense table inside Adam reads and writes every user at every step, and its momentum moves users whom the batch does
not hold. Here a step gathers the rows of its batch into a small leaf tensor, autograd fills the leaf's gradient, and
those rows alone are updated. Rows start at zero, and memory that is still zero is not resident: neither time nor
memory grows with the number of users.

Few comparisons stay near the generic user. A penalty in the loss cannot do that: Adam divides a gradient by its own
size. So a row is what Adam trains times the share that its user's comparisons deserve (`shrink`), which is the mean of
a Gaussian posterior whose prior is worth so many comparisons. Training sees the row that is exported.
"""

import math
import mmap
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Rows:
    """`values` [n_users + 1, width]; row 0 is the generic user's: always zero."""

    STATE = ("steps", "values", "mean", "variance")

    def __init__(self, n_users: int, width: int, folder: Path | None = None) -> None:
        """All zero: in memory, or in a nameless sparse file on the disk of `folder`, gone when the process ends."""
        shape = (n_users + 1, width)
        tables = (_zeros(4 * math.prod(shape), folder).view(np.float32).reshape(shape) for _ in range(3))
        self.values, self.mean, self.variance = (torch.from_numpy(table) for table in tables)
        self.steps = torch.from_numpy(_zeros(4 * (n_users + 1), None).view(np.int32))
        self.share = torch.ones(n_users + 1)
        self._placed = False

    @property
    def n_users(self) -> int:
        return len(self.steps) - 1

    @property
    def width(self) -> int:
        return int(self.values.shape[1])

    def shrink(self, n_votes: Tensor, prior: float) -> None:
        """Have a user with n of the comparisons [n_users + 1] go n / (n + prior) of the way, from the start on."""
        self.share = n_votes / (n_votes + prior).clamp(min=1e-9)
        if self._placed:
            self.values *= self.share[:, None]

    def place(self, values: Tensor) -> None:
        """Have all users start at their share of `values` [n_users, width]."""
        self.values[1:] = self.share[1:, None] * values
        self._placed = True

    def gather(self, rows: Tensor) -> Tensor:
        """A copy of the rows [U], [U, width]."""
        return self.values[rows]

    def update(self, rows: Tensor, gradient: Tensor, lr: float) -> None:
        """One Adam step for the distinct rows [U] with their gradient [U, width], of the users' shares; row 0 is left
        alone.

        Each row counts its own steps for the bias correction. When every row is touched at every step, and all shares
        are 1, this is torch.optim.Adam. The gradient with respect to a row is that of what Adam trains over the share,
        which Adam's division takes out.
        """
        known = rows > 0
        rows, gradient = rows[known], gradient[known]
        self.steps[rows] += 1
        n_steps = self.steps[rows, None].double()
        mean = torch.lerp(self.mean[rows], gradient, 1 - BETAS[0])
        variance = torch.lerp(self.variance[rows], gradient * gradient, 1 - BETAS[1])
        self.mean[rows], self.variance[rows] = mean, variance
        unbiased = (variance / (1 - BETAS[1] ** n_steps)).sqrt() + EPSILON
        step = self.share[rows, None] * lr * mean / (1 - BETAS[0] ** n_steps) / unbiased
        self.values[rows] -= step.float()

    def touched(self) -> dict[str, Tensor]:
        """Everything that differs from a fresh table, for a checkpoint: numbers of the rows and their contents."""
        touched = np.arange(1, self.n_users + 1) if self._placed else np.flatnonzero(self.steps.numpy())
        rows = torch.from_numpy(touched)
        return {"index": rows} | {name: getattr(self, name)[rows] for name in self.STATE}

    def restore(self, touched: dict[str, Tensor]) -> None:
        """Put back what `touched` gave, into a fresh table."""
        rows = touched["index"]
        for name in self.STATE:
            getattr(self, name)[rows] = touched[name]
        # Rows that no step has touched were placed; the next checkpoint must have them, too.
        self._placed = self._placed or bool((touched["steps"] == 0).any())


def _zeros(n_bytes: int, folder: Path | None) -> NDArray[np.uint8]:
    """Zero bytes that are not resident until they are written, a page of 4 KiB at a time."""
    if n_bytes == 0:
        return np.zeros(0, np.uint8)
    if folder is None:
        memory = mmap.mmap(-1, n_bytes)
        # One touched row must not bring in the 2 MiB around it.
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        return np.frombuffer(memory, np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(n_bytes)
        return np.frombuffer(mmap.mmap(file.fileno(), n_bytes), np.uint8)
