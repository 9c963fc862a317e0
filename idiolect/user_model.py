"""From a user code (a few numbers) to user tokens (T_u x H soft tokens), for each kind of user model.

Numpy only: the trainer has the same arithmetic in torch and a test holds the two together.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import UserCodeError

Kind = Literal["individual", "cluster"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Array = NDArray[np.float32]

SIMPLEX_TOLERANCE = 1e-3
"""How far the weights of a cluster code may sum from 1; float32 softmax over 1,000 clusters stays far below."""


@dataclass(frozen=True)
class UserModel:
    """One trained user model (arXiv 2402.05133, section 4.2).

    individual: e_u = e_0 + o_u.            basis is e_0, [T_u, H];  code is o_u flattened, [T_u * H]
    cluster:    e_u = sum_k w_uk c_k.       basis is c,   [K, T_u, H]; code is w_u on the simplex, [K]

    `generic_code` is the trained code of a user nobody knows: zeros for individual (so e_u = e_0), the
    generic weights for cluster.
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
        return int(self.basis.size if self.kind == "individual" else self.basis.shape[0])

    def check(self, code: Array) -> Array:
        """The code as float32 [code_size]. Raises UserCodeError when it is not one of this model's codes."""
        code = np.asarray(code, dtype=np.float32)
        if code.shape != (self.code_size,):
            raise UserCodeError(f"user code has shape {code.shape}, expected ({self.code_size},)")
        if not np.isfinite(code).all():
            raise UserCodeError("user code has a number that is not finite")
        if self.kind == "cluster" and (code.min() < 0 or abs(float(code.sum()) - 1) > SIMPLEX_TOLERANCE):
            raise UserCodeError("cluster weights must be non-negative and sum to 1")
        return code

    def user_tokens(self, code: Array) -> Array:
        """Soft tokens of one user, float32 [T_u, H]. Raises UserCodeError."""
        code = self.check(code)
        if self.kind == "individual":
            return self.basis + code.reshape(self.basis.shape)
        return np.tensordot(code, self.basis, axes=1).astype(np.float32)
