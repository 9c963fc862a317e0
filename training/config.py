"""One run, stated in full: YAML in, unknown keys refused, the resolved form saved with the weights."""

from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from idiolect.layout import Placement
from idiolect.user_model import Kind
from training.errors import BadRunConfig


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class UserModelConfig(_Strict):
    kind: Kind = "individual"
    n_user_tokens: int = Field(default=10, ge=1, le=64)
    """T_u: how many soft tokens stand for a user."""
    n_clusters: int = Field(default=4, ge=2)
    """K, for kind cluster."""


class LoraConfig(_Strict):
    rank: int = Field(default=8, ge=1)
    alpha: int = Field(default=16, ge=1)
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")


class RunConfig(_Strict):
    """Every number of a run. Paths are relative to the run file."""

    train: Path
    test: Path
    model: str = "demo"
    """Base model: `demo`, a local folder, or a Hugging Face id."""
    user_model: UserModelConfig = UserModelConfig()
    lora: LoraConfig = LoraConfig()
    placement: Placement = "after_system"
    alpha: float = Field(default=0.5, ge=0, le=1)
    """Weight of the user loss against the generic loss; 0 is pooled DPO."""
    beta: float = Field(default=0.1, gt=0)
    """DPO inverse temperature."""
    nll_weight: float = Field(default=1.0, ge=0)
    """Weight of the chosen replies' mean token loss beside P-DPO (docs/decisions/0002); 0 is P-DPO alone."""
    lora_lr: float = Field(default=5e-4, gt=0)
    user_lr: float = Field(default=5e-3, gt=0)
    epochs: int = Field(default=1, ge=1)
    batch_pairs: int = Field(default=8, ge=1)
    warmup_steps: int = Field(default=10, ge=0)
    max_prompt_tokens: int = Field(default=512, ge=8)
    max_reply_tokens: int = Field(default=256, ge=2)
    checkpoint_steps: int = Field(default=25, ge=1)
    seed: int = 0

    @classmethod
    def read(cls, path: Path) -> Self:
        """The run of a YAML file, its data paths resolved. Raises BadRunConfig."""
        try:
            run = cls.model_validate(yaml.safe_load(path.read_text()))
        except (ValidationError, yaml.YAMLError, OSError) as error:
            raise BadRunConfig(f"{path}: {error}") from error
        return run.model_copy(update={"train": path.parent / run.train, "test": path.parent / run.test})

    def portable(self) -> dict[str, object]:
        """The run as JSON, with file names in place of this machine's paths: what checkpoints and bundles keep."""
        values = self.model_dump(mode="json")
        return values | {"train": self.train.name, "test": self.test.name, "model": Path(self.model).name}
