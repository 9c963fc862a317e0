"""What a run file says of its user model: a `kind` and its settings. Read without torch; user_models.py builds them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    n_user_tokens: int = Field(default=10, ge=1, le=64)
    """T_u: how many soft tokens stand for a user."""


class Uniform(_Config):
    """Everybody shares one embedding: the pooled baseline."""

    kind: Literal["uniform"]


class Individual(_Config):
    """Each user has an own offset: for few users, since a row is as long as the user tokens."""

    kind: Literal["individual"]
    start: Literal["generic", "vocabulary"] = "generic"
    """Where users start: at the generic user, or, as in the paper, each at own random rows of the vocabulary."""


class Cluster(_Config):
    """Each user is a mixture of shared embeddings: scales to any number of users."""

    kind: Literal["cluster"]
    n_clusters: int = Field(default=4, ge=2, le=1024)
    """K."""
    start: Literal["generic", "votes"] = "generic"
    """Where users start: at the generic user, or each in the cluster of those who voted alike (cluster_start.py)."""


class LowRank(_Config):
    """Each user is a point in a shared space of few dimensions: scales to any number of users."""

    kind: Literal["low_rank"]
    n_factors: int = Field(default=8, ge=1, le=1024)
    """r."""


UserModelConfig = Annotated[Uniform | Individual | Cluster | LowRank, Field(discriminator="kind")]
