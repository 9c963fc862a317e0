"""The reward track: linear rewards on frozen features, one head a user. A measuring stick, not the policy.

A vote says that user u prefers one reply to another: p = sigma(w_u . x), x the difference of the two replies' features
(Bradley-Terry). The user models mirror those of users/user_models.py; all are fitted by MAP, so that a user without
votes has the generic head:

    global      w_u = w_0
    individual  w_u = w_0 + o_u
    low-rank    w_u = w_0 + sum_j a_uj B_j                 (as LoRe, arXiv 2504.14439, and RFM, arXiv 2503.17338)
    cluster     w_u = sum_k softmax(l_0 + a_u)_k c_k       (arXiv 2402.05133, with heads in place of soft tokens)
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

Array = NDArray[np.float32]

SHARPNESS = 3.0


@dataclass(frozen=True)
class Basis:
    """Feature differences -> blocks of like scale.

    A block [n, F] is divided by its features' root mean square, turned to its `rank` principal directions when it has
    more, and scaled so that a row's expected squared norm is 1: a weight's prior standard deviation then is that of the
    margin which its block gives.
    """

    turns: tuple[Array, ...]  # [F, rank] a block

    @classmethod
    def fit(cls, blocks: Sequence[Array], rank: int = 128) -> Self:
        """From differences of training pairs; neither votes nor a pair's orientation matter."""
        turns = []
        for block in blocks:
            scale = 1 / np.maximum(np.sqrt((block**2).mean(0)), 1e-6)
            turn = np.diag(scale)
            if block.shape[1] > rank:
                _, vectors = np.linalg.eigh((block * scale).T @ (block * scale))
                turn = scale[:, None] * vectors[:, : -rank - 1 : -1]
            turns.append(turn / np.sqrt(((block @ turn) ** 2).sum(1).mean()))
        return cls(tuple(turns))

    def apply(self, blocks: Sequence[Array]) -> Array:
        """All blocks beside each other, [n, D]."""
        return np.hstack([block @ turn for block, turn in zip(blocks, self.turns, strict=True)])

    @property
    def sizes(self) -> tuple[int, ...]:
        """Features of each block, summing to D."""
        return tuple(turn.shape[1] for turn in self.turns)


@dataclass(frozen=True)
class Votes:
    """n votes: `user` [n] numbers the users, `x` [n, D] is the chosen reply's features minus the rejected one's."""

    user: NDArray[np.int64]
    x: Array

    def __len__(self) -> int:
        return len(self.user)

    def __getitem__(self, where: NDArray[np.int64] | NDArray[np.bool_]) -> "Votes":
        return Votes(self.user[where], self.x[where])


@dataclass(frozen=True)
class Prior:
    """Prior standard deviations in margin, one a block: of the generic head, and of how users differ from it."""

    shared: tuple[float, ...]
    user: tuple[float, ...]
    n_codes: int = 4


class Heads(ABC):
    """w_u = generic + weights(code of u) @ directions. Every unknown is standard normal a priori; `prior` scales it."""

    def __init__(self, sizes: Sequence[int], prior: Prior) -> None:
        """`sizes` are the widths of the feature blocks, summing to D."""
        self.n_codes = prior.n_codes
        self.shared_scale = torch.tensor(np.repeat(prior.shared, sizes), dtype=torch.float32)
        self.user_scale = torch.tensor(np.repeat(prior.user, sizes), dtype=torch.float32)
        self.shared: dict[str, Tensor] = {}
        self.codes = torch.zeros(0, self.width)

    @property
    def width(self) -> int:
        """Numbers in a user's code."""
        return self.n_codes

    def start(self) -> dict[str, Tensor]:
        """Shared unknowns to start from."""
        return {"generic": torch.zeros_like(self.shared_scale)}

    @abstractmethod
    def departures(self, x: Tensor, user: Tensor, shared: Mapping[str, Tensor], codes: Tensor) -> Tensor:
        """(w_u - generic) . x of each vote, [n]."""

    def fit(self, votes: Votes, n_users: int) -> Self:
        """Shared unknowns and the codes of users 0 to n_users - 1, together."""
        found = _minimize(
            lambda unknown: self._loss(votes, unknown, unknown["codes"]), self.start() | {"codes": self._zeros(n_users)}
        )
        self.codes = found.pop("codes")
        self.shared = found
        return self

    def infer(self, votes: Votes, n_users: int) -> Tensor:
        """Codes of new users from their votes, [n_users, width]; what users share stays as it is."""
        start = {"codes": self._zeros(n_users)}
        return _minimize(lambda unknown: self._loss(votes, self.shared, unknown["codes"]), start)["codes"]

    def margins(self, votes: Votes, codes: Tensor | None = None) -> Array:
        """w_u . x of each vote, [n], positive where the head agrees; with the fitted codes unless others are given."""
        return np.asarray(self._margins(votes, self.shared, self.codes if codes is None else codes).numpy())

    def _margins(self, votes: Votes, shared: Mapping[str, Tensor], codes: Tensor) -> Tensor:
        x, user = torch.from_numpy(votes.x), torch.from_numpy(votes.user)
        return x @ (self.shared_scale * shared["generic"]) + self.departures(x, user, shared, codes)

    def _loss(self, votes: Votes, shared: Mapping[str, Tensor], codes: Tensor) -> Tensor:
        misfit = torch.nn.functional.softplus(-self._margins(votes, shared, codes)).double().sum()
        return misfit + torch.stack([(unknown**2).sum() for unknown in (*shared.values(), codes)]).sum() / 2

    def _zeros(self, n_users: int) -> Tensor:
        return torch.zeros(n_users, self.width)

    def _draw(self) -> Tensor:
        """Small random vectors [n_codes, D], which break the symmetry between codes."""
        generator = torch.Generator().manual_seed(0)
        return 0.3 * torch.randn(self.n_codes, len(self.user_scale), generator=generator)


class Global(Heads):
    """Everybody has the generic head."""

    @property
    def width(self) -> int:
        return 0

    def departures(self, x: Tensor, user: Tensor, shared: Mapping[str, Tensor], codes: Tensor) -> Tensor:
        return x.new_zeros(len(x))


class Individual(Heads):
    """Each user has an own offset: hierarchical ridge."""

    @property
    def width(self) -> int:
        return len(self.user_scale)

    def departures(self, x: Tensor, user: Tensor, shared: Mapping[str, Tensor], codes: Tensor) -> Tensor:
        return ((self.user_scale * codes).index_select(0, user) * x).sum(1)


class LowRank(Heads):
    """Users differ along `n_codes` directions, which are learnt from all of them."""

    def start(self) -> dict[str, Tensor]:
        return super().start() | {"directions": self._draw()}

    def departures(self, x: Tensor, user: Tensor, shared: Mapping[str, Tensor], codes: Tensor) -> Tensor:
        return (x @ (self.user_scale * shared["directions"]).T * codes.index_select(0, user)).sum(1)


class Cluster(Heads):
    """Each user is a mixture of `n_codes` heads, which lie around the generic one."""

    def start(self) -> dict[str, Tensor]:
        popularity = torch.zeros(self.n_codes)
        return super().start() | {"centres": self._draw(), "popularity": popularity}

    def departures(self, x: Tensor, user: Tensor, shared: Mapping[str, Tensor], codes: Tensor) -> Tensor:
        mixtures = torch.softmax(shared["popularity"] + SHARPNESS * codes, -1)
        return (x @ (self.user_scale * shared["centres"]).T * mixtures.index_select(0, user)).sum(1)


def climb(
    loss: Callable[[tuple[float, ...]], float], ladders: Sequence[Sequence[float]], start: Sequence[int]
) -> tuple[tuple[float, ...], float]:
    """Hill climbing, a rung at a time, from the `start` rungs of the ladders: the best point found, and its loss.

    The loss must be measured on validation votes inside training.
    """

    @cache
    def at(rungs: tuple[int, ...]) -> float:
        return loss(tuple(ladder[rung] for ladder, rung in zip(ladders, rungs, strict=True)))

    best, before = tuple(start), None
    while best != before:
        before = best
        for axis, step in product(range(len(ladders)), (1, -1)):
            rungs = tuple(rung + step * (place == axis) for place, rung in enumerate(best))
            if 0 <= rungs[axis] < len(ladders[axis]) and at(rungs) < at(best):
                best = rungs
    return tuple(ladder[rung] for ladder, rung in zip(ladders, best, strict=True)), at(best)


def _minimize(loss: Callable[[dict[str, Tensor]], Tensor], start: dict[str, Tensor]) -> dict[str, Tensor]:
    """L-BFGS from `start`; the loss is summed in float64."""

    def unpack(flat: NDArray[np.float64]) -> dict[str, Tensor]:
        parts = torch.from_numpy(flat).float().split([value.numel() for value in start.values()])
        return {
            name: part.reshape(value.shape).requires_grad_()
            for (name, value), part in zip(start.items(), parts, strict=True)
        }

    def evaluate(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        unknown = unpack(flat)
        value = loss(unknown)
        gradients = torch.autograd.grad(value, list(unknown.values()))
        return value.item(), torch.cat([gradient.reshape(-1) for gradient in gradients]).double().numpy()

    first = torch.cat([value.reshape(-1) for value in start.values()]).double().numpy()
    options = {"maxiter": 300, "ftol": 1e-6}
    found = minimize(evaluate, first, jac=True, method="L-BFGS-B", options=options).x
    return {name: value.detach() for name, value in unpack(found).items()}
