"""The trainable user models: a user's row of numbers -> user tokens, and their export.

Each has a config (config.py), a module of shared weights, and an export to a numpy twin that serving
knows (idiolect.user_model). A row of zeros is the generic user and everybody starts there, so that a user with few
comparisons is served something near the generic user rather than noise. The rows live in user_rows.py.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from idiolect.user_model import Array, Kind, UserModel
from idiolect_training.users.config import Cluster, Individual, LowRank, Uniform, UserModelConfig
from idiolect_training.users.user_rows import Rows


class UserTable(nn.Module, ABC):  # type: ignore[misc]
    """Weights shared by all users. `width` is how many numbers a user's row has."""

    width: int

    @abstractmethod
    def forward(self, rows: Tensor) -> Tensor:
        """User tokens [B, T_u, H] of users' rows [B, width]."""

    @abstractmethod
    def codes(self, rows: Tensor) -> Tensor:
        """Served user codes [B, code_size] of users' rows [B, width]."""

    @abstractmethod
    def basis(self) -> tuple[Kind, Tensor]:
        """The kind and basis of the numpy twin, as idiolect.user_model lays them out."""

    def export(self) -> UserModel:
        """The numpy twin."""
        kind, basis = self.basis()
        return UserModel(
            kind, to_numpy(basis), to_numpy(self.codes(torch.zeros(1, self.width, device=basis.device))[0])
        )


class IndividualUsers(UserTable):
    """e_u = e_0 + o_u: a row is the offset o_u, flattened."""

    def __init__(self, initial: Tensor) -> None:
        """`initial` is e_0, [1, T_u, H]."""
        super().__init__()
        self.generic = nn.Parameter(initial[0].clone())
        self.width = self.generic.numel()

    def forward(self, rows: Tensor) -> Tensor:
        return self.generic + rows.reshape(-1, *self.generic.shape)

    def codes(self, rows: Tensor) -> Tensor:
        return rows

    def basis(self) -> tuple[Literal["individual"], Tensor]:
        return "individual", self.generic


class UniformUsers(IndividualUsers):
    """e_u = e_0 for everybody: pooled preference learning with the same soft tokens. Rows are empty."""

    def __init__(self, initial: Tensor) -> None:
        super().__init__(initial)
        self.width = 0

    def forward(self, rows: Tensor) -> Tensor:
        return self.generic.expand(len(rows), *self.generic.shape)

    def codes(self, rows: Tensor) -> Tensor:
        return rows.new_zeros(len(rows), self.generic.numel())


class ClusterUsers(UserTable):
    """e_u = sum_k softmax(w_0 + o_u)_k c_k: a row is the offset o_u of the logits."""

    def __init__(self, initial: Tensor) -> None:
        """`initial` is c, [K, T_u, H]."""
        super().__init__()
        self.clusters = nn.Parameter(initial.clone())
        self.generic_logits = nn.Parameter(torch.zeros(len(initial)))
        self.width = len(initial)

    def codes(self, rows: Tensor) -> Tensor:
        return torch.softmax(self.generic_logits + rows, dim=-1)

    def forward(self, rows: Tensor) -> Tensor:
        return torch.einsum("bk,kth->bth", self.codes(rows), self.clusters)

    def basis(self) -> tuple[Literal["cluster"], Tensor]:
        return "cluster", self.clusters


class LowRankUsers(UserTable):
    """e_u = e_0 + sum_j u_j B_j: a row is u. The directions B start random and small, the factors at zero."""

    def __init__(self, initial: Tensor) -> None:
        """`initial` is e_0 and the r start directions, [1 + r, T_u, H]."""
        super().__init__()
        self.generic = nn.Parameter(initial[0].clone())
        self.directions = nn.Parameter(initial[1:].clone())
        self.width = len(self.directions)

    def codes(self, rows: Tensor) -> Tensor:
        return rows

    def forward(self, rows: Tensor) -> Tensor:
        return self.generic + torch.einsum("br,rth->bth", rows, self.directions)

    def basis(self) -> tuple[Literal["low_rank"], Tensor]:
        return "low_rank", torch.cat([self.generic[None], self.directions])


def build_user_table(
    config: UserModelConfig, n_users: int, vocabulary: Tensor, seed: int, folder: Path | None = None
) -> tuple[UserTable, Rows]:
    """A fresh table whose embeddings start at distinct random rows of the base model's vocabulary [V, H]."""
    vocabulary = vocabulary.detach().float().cpu()
    table = _table(config, vocabulary, torch.Generator().manual_seed(seed))
    rows = Rows(n_users, table.width, folder)
    if config.kind == "individual" and config.start == "vocabulary":
        draw = torch.Generator().manual_seed(seed)
        embeddings = _draw(vocabulary, 1 + n_users, config.n_user_tokens, draw).flatten(1)
        rows.place(embeddings[1:] - embeddings[0])
    return table, rows


def _table(config: UserModelConfig, vocabulary: Tensor, draw: torch.Generator) -> UserTable:
    match config:
        case Uniform():
            return UniformUsers(_draw(vocabulary, 1, config.n_user_tokens, draw))
        case Individual():
            return IndividualUsers(_draw(vocabulary, 1, config.n_user_tokens, draw))
        case Cluster():
            return ClusterUsers(_draw(vocabulary, config.n_clusters, config.n_user_tokens, draw))
        case LowRank():
            initial = _draw(vocabulary, 1 + config.n_factors, config.n_user_tokens, draw)
            return LowRankUsers(torch.cat([initial[:1], initial[1:] - initial[1:].mean(0)]))


def _draw(vocabulary: Tensor, n_groups: int, n_user_tokens: int, generator: torch.Generator) -> Tensor:
    """Distinct vocabulary rows, [n_groups, T_u, H]."""
    ids = torch.randperm(len(vocabulary), generator=generator)[: n_groups * n_user_tokens]
    return vocabulary[ids].reshape(n_groups, n_user_tokens, -1)


def to_numpy(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float32)
