"""The trainable user models in torch: row -> user tokens, and their export to codes and basis.

Row 0 is the generic user. Everybody starts exactly there (zero-initialised offsets), so a user with few comparisons
is served something near the generic user rather than noise.
"""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import nn

from idiolect.user_model import Array, UserModel
from training.config import UserModelConfig

Tensor = torch.Tensor


class UserTable(nn.Module, ABC):
    """Soft tokens for user rows. Subclasses add what a row's code means."""

    @abstractmethod
    def forward(self, rows: Tensor) -> Tensor:
        """User tokens [B, T_u, H] of the rows [B]."""

    @abstractmethod
    def export(self) -> tuple[UserModel, Array]:
        """The numpy twin, and the codes [n_users, code_size] of rows 1 to n_users."""


class IndividualUsers(UserTable):
    """e_u = e_0 + o_u with one offset a user."""

    def __init__(self, n_users: int, initial: Tensor) -> None:
        """`initial` is e_0, [1, T_u, H]."""
        super().__init__()
        self.generic = nn.Parameter(initial[0].clone())
        self.offsets = nn.Parameter(torch.zeros(n_users, *initial.shape[1:]))

    def forward(self, rows: Tensor) -> Tensor:
        # The generic row has no offset, not a zero one that could be trained away from zero.
        offsets = self.offsets[(rows - 1).clamp(min=0)] * (rows > 0).to(self.offsets.dtype)[:, None, None]
        return self.generic + offsets

    def export(self) -> tuple[UserModel, Array]:
        codes = _numpy(self.offsets).reshape(len(self.offsets), -1)
        model = UserModel("individual", _numpy(self.generic), np.zeros(codes.shape[1], np.float32))
        return model, codes


class ClusterUsers(UserTable):
    """e_u = sum_k softmax(w_u)_k c_k with w_u = w_0 + o_u."""

    def __init__(self, n_users: int, initial: Tensor) -> None:
        """`initial` is c, [K, T_u, H]."""
        super().__init__()
        self.clusters = nn.Parameter(initial.clone())
        self.generic_logits = nn.Parameter(torch.zeros(len(initial)))
        self.offsets = nn.Parameter(torch.zeros(n_users, len(initial)))

    def weights(self, rows: Tensor) -> Tensor:
        """Cluster weights on the simplex, [B, K]."""
        offsets = self.offsets[(rows - 1).clamp(min=0)] * (rows > 0).to(self.offsets.dtype)[:, None]
        return torch.softmax(self.generic_logits + offsets, dim=-1)

    def forward(self, rows: Tensor) -> Tensor:
        return torch.einsum("bk,kth->bth", self.weights(rows), self.clusters)

    def export(self) -> tuple[UserModel, Array]:
        weights = _numpy(self.weights(torch.arange(len(self.offsets) + 1, device=self.offsets.device)))
        return UserModel("cluster", _numpy(self.clusters), weights[0]), weights[1:]


def build_user_table(config: UserModelConfig, n_users: int, vocabulary: Tensor, seed: int) -> UserTable:
    """A fresh table whose embeddings start at distinct random rows of the base model's vocabulary [V, H]."""
    n_groups = config.n_clusters if config.kind == "cluster" else 1
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randperm(len(vocabulary), generator=generator)[: n_groups * config.n_user_tokens]
    initial = vocabulary[ids].detach().float().reshape(n_groups, config.n_user_tokens, -1)
    return ClusterUsers(n_users, initial) if config.kind == "cluster" else IndividualUsers(n_users, initial)


def _numpy(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float32)
