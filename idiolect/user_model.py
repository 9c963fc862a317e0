"""From a user code (a few numbers) to user tokens (T_u x H soft tokens), for each kind of user model.

Numpy only: the trainer has the same arithmetic in torch and a test holds the two together.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import UserCodeError

Kind = Literal["individual", "cluster", "low_rank"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Array = NDArray[np.float32]

LARGEST = 4096.0
"""Of a number in a user token, a code or an adapter: 16 times below float16's 65,504, in which an engine may compute.
Layers add up what is given to them, and a sum that overflows is no reply. The demo bundle's largest is 0.92."""
SIMPLEX_TOLERANCE = 1e-3
"""How far the weights of a cluster code may sum from 1; float32 softmax over 1,000 clusters stays far below."""


@dataclass(frozen=True)
class UserModel:
    """One trained user model (arXiv 2402.05133, section 4.2).

    individual: e_u = e_0 + o_u.            basis is e_0, [T_u, H];  code is o_u flattened, [T_u * H]
    cluster:    e_u = sum_k w_uk c_k.       basis is c,   [K, T_u, H]; code is w_u on the simplex, [K]
    low_rank:   e_u = e_0 + sum_j u_j B_j.  basis is e_0 and then B, [1 + r, T_u, H]; code is u, [r]

    `generic_code` is the trained code of a user nobody knows: zeros for individual and low_rank (so e_u = e_0),
    the generic weights for cluster.
    """

    kind: Kind
    basis: Array
    generic_code: Array

    @property
    def n_user_tokens(self) -> int:
        return int(self.basis.shape[-2])

    @property
    def hidden_size(self) -> int:
        return int(self.basis.shape[-1])

    @property
    def code_size(self) -> int:
        """How many float32 numbers stand for one user."""
        if self.kind == "individual":
            return int(self.basis.size)
        return len(self.basis) - (self.kind == "low_rank")

    def check(self, codes: Array) -> Array:
        """Codes as float32 [..., code_size].

        Raises UserCodeError when one of them is not one of this model's codes, or not fit for
        float16 (LARGEST).
        """
        codes = np.asarray(codes, dtype=np.float32)
        if codes.shape[-1:] != (self.code_size,):
            raise UserCodeError(f"user code has shape {codes.shape}, expected ({self.code_size},)")
        if not np.isfinite(codes).all():
            raise UserCodeError("user code has a number that is not finite")
        if self.kind == "cluster":
            sums = codes.sum(axis=-1, dtype=np.float64)
            if (codes < 0).any() or (np.abs(sums - 1) > SIMPLEX_TOLERANCE).any():
                raise UserCodeError("cluster weights must be non-negative and sum to 1")
        if not self._bounds(codes) <= LARGEST:
            raise UserCodeError(f"user code makes user tokens beyond {LARGEST:g}, too large for float16")
        return codes

    def _bounds(self, codes: Array) -> float:
        """No number of these codes [..., code_size], and none of their user tokens, is larger."""
        if not codes.size:
            return 0.0
        sizes, most = np.abs(codes), self._most
        with np.errstate(over="ignore", invalid="ignore"):
            if self.kind == "individual":
                tokens = most[0] + sizes.max()
            elif self.kind == "low_rank":
                tokens = most[0] + (sizes @ most[1:]).max()
            else:
                tokens = most.max()
        return float(max(tokens, sizes.max()))

    @cached_property
    def _most(self) -> Array:
        """The largest number, whatever its sign, of the one basis or of each."""
        bases = self.basis[None] if self.kind == "individual" else self.basis
        largest: Array = np.abs(bases).max(axis=(1, 2))
        return largest

    def user_tokens(self, code: Array) -> Array:
        """Soft tokens of one user, float32 [T_u, H], of its code [code_size]. Raises UserCodeError."""
        code = self.check(code)
        if code.ndim != 1:
            raise UserCodeError(f"user code has shape {code.shape}, expected ({self.code_size},)")
        if self.kind == "individual":
            return self.basis + code.reshape(self.basis.shape)
        if self.kind == "low_rank":
            code = np.append(np.float32(1), code)
        return np.tensordot(code, self.basis, axes=1).astype(np.float32)
