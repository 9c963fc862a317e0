"""One run, stated in full: YAML in, unknown keys refused, the resolved form saved with the weights.

Imported without torch, so that a run that cannot begin is refused at once.
"""

import json
import logging
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from idiolect.manifest import MAX_ALPHA, MAX_RANK, ClusterName, Decoding, Modules
from idiolect.prompt.layout import Placement
from idiolect_training.data.formats import Format, read_format
from idiolect_training.data.lines import BadLines, some
from idiolect_training.data.preferences import Preference
from idiolect_training.data.split import By, overlap, split
from idiolect_training.errors import BadRunConfig
from idiolect_training.users.config import Individual, Uniform, UserModelConfig

Objective = Literal["sigmoid", "robust", "hinge", "ipo"]
"""The preference loss: idiolect_training.fit.loss."""

log = logging.getLogger(__name__)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LoraConfig(_Strict):
    rank: int = Field(default=8, ge=1, le=MAX_RANK)
    """At most what vLLM serves; it has kernels for some ranks, and the server takes the next one."""
    alpha: int = Field(default=16, ge=1, le=MAX_ALPHA)
    target_modules: Modules = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Names of linear layers of the base model, without `all-linear` and other patterns."""


class SplitConfig(_Strict):
    """Which part of `train` is held out when there is no `test`: decided by content, so it never moves."""

    by: By = "prompt"
    share: float = Field(default=0.1, gt=0, lt=1)


class EarlyStop(_Strict):
    """Stop when accuracy on a held-out part of the training data (by prompt) rises no more; the best step is kept."""

    share: float = Field(default=0.1, gt=0, lt=1)
    every_steps: int = Field(default=25, ge=1)
    patience: int = Field(default=3, ge=1)
    """How many evaluations without a new best end the run."""


class GenerateConfig(_Strict):
    """Replies written for the evaluation: by a few users, to the same prompts."""

    prompts: Path | None = None
    """A text file, one prompt per line, best from another source than the comparisons; else held-out prompts."""
    n_prompts: int = Field(default=16, ge=1)
    max_new_tokens: int = Field(default=64, ge=1)
    max_looping: float = Field(default=0.05, ge=0, le=1)
    """`export` refuses users whose replies loop more often than the generic user's by more than this share."""


class BankConfig(_Strict):
    """Questions for new users, taken from the held-out comparisons, shipped in the bundle with their margins."""

    n_questions: int = Field(default=64, ge=1, le=4096)


class RunConfig(_Strict):
    """Every number of a run. Paths are relative to the run file."""

    train: Path
    test: Path | None = None
    """Held-out comparisons; without it, `split` holds some of `train` out."""
    split: SplitConfig = SplitConfig()
    format: Format = "jsonl"
    bad_lines: BadLines = "stop"
    """What a line that cannot be used does: stop the run, or be skipped and named in the log."""
    model: str = "demo"
    """Base model: `demo`, a local folder, or a Hugging Face id."""
    user_model: UserModelConfig = Individual(kind="individual")
    user_rows: Literal["memory", "file"] = "memory"
    """Where users' rows live while training: host memory, or a sparse file in the run folder."""
    lora: LoraConfig = LoraConfig()
    placement: Placement = "after_system"
    special_texts: bool = False
    """Take what looks like a special token in a message for one, as other servers do; the bundle says so."""
    objective: Objective = "sigmoid"
    length_normalized: bool = False
    """Take log-probabilities per token instead of a reply."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of votes thought to be wrong; above 0, `sigmoid` is conservative DPO."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    """Weight of the user loss against the generic loss; 0 is pooled."""
    alpha_mix: Literal["draw", "both"] = "draw"
    """Draw which of the two losses a pair trains, or train both as in the paper, at twice the cost."""
    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the preference loss."""
    nll_weight: float = Field(default=1.0, ge=0)
    """Weight of the chosen replies' mean token loss beside it (docs/decisions/0002); 0 is the preference loss alone."""
    prior: float = Field(default=4.0, ge=0)
    """How many comparisons the generic user is worth: a user with n of them goes n / (n + prior) of the way."""
    lora_lr: float = Field(default=5e-4, gt=0)
    user_lr: float = Field(default=5e-3, gt=0)
    """Of the embeddings that users share."""
    row_lr: float = Field(default=5e-3, gt=0)
    """Of each user's own row; cluster and low-rank rows want about ten times more."""
    epochs: int = Field(default=1, ge=1)
    batch_pairs: int = Field(default=8, ge=1)
    """Pairs a step, over all processes."""
    micro_batch_pairs: int | None = Field(default=None, ge=1)
    """Pairs in one forward pass; the step accumulates them. All of a process's share when absent."""
    warmup_steps: int = Field(default=10, ge=0)
    max_prompt_tokens: int = Field(default=512, ge=8)
    max_reply_tokens: int = Field(default=256, ge=2)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on a GPU, fp32 on a CPU."""
    gradient_checkpointing: bool = False
    checkpoint_steps: int = Field(default=25, ge=1)
    early_stop: EarlyStop | None = None
    generate: GenerateConfig | None = None
    """Also measure length and style of replies that the trained policy writes; slow on a CPU."""
    bank: BankConfig | None = None
    """Ship a question bank, from which new users are inferred (docs/new-users.md)."""
    cluster_names: tuple[ClusterName, ...] | None = None
    """What people call each cluster, once its replies have been looked at; `export` again to put them in the bundle."""
    decoding: Decoding | None = None
    """How replies are drawn, in the evaluation and under the bundle: no part of training."""
    log_with: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.objective == "robust" and self.label_smoothing == 0:
            raise ValueError("objective robust needs a label_smoothing above 0")
        if self.user_model.kind == "uniform" and self.alpha != 0:
            raise ValueError("user_model uniform has no users to train: set alpha to 0")
        n_clusters = self.user_model.n_clusters if self.user_model.kind == "cluster" else 0
        names = self.cluster_names
        if names is not None and not len(names) == len(set(names)) == n_clusters:
            raise ValueError("cluster_names: want one distinct name for each cluster of a cluster model")
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """The run of a YAML file, its data paths resolved. Raises BadRunConfig."""
        try:
            run = cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "run"
            raise BadRunConfig(f"{path}: {where}: {first['msg']}") from error
        except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
            raise BadRunConfig(f"{path}: {error}") from error
        paths: dict[str, object] = {"train": path.parent / run.train, "test": run.test and path.parent / run.test}
        if run.generate is not None and run.generate.prompts is not None:
            prompts = path.parent / run.generate.prompts
            paths["generate"] = run.generate.model_copy(update={"prompts": prompts})
        return run.model_copy(update=paths)

    def data(self) -> tuple[list[Preference], list[Preference]]:
        """Training and held-out comparisons; what is on both sides is said in the log.

        Raises BadPreference; BadRunConfig when a split leaves a side empty.
        """
        train = read_format(self.format, self.train, self.bad_lines)
        if self.test is None:
            return split(train, self.split.by, self.split.share, self.seed)
        test = read_format(self.format, self.test, self.bad_lines)
        if known := overlap(train, test):
            places = some([preference.source for preference in known])
            log.warning("%d of %d test comparisons are in the training data, too: %s", len(known), len(test), places)
        return train, test

    def pooled(self) -> Self:
        """The baseline beside this run: as many updates and soft tokens, which everybody shares."""
        uniform = Uniform(kind="uniform", n_user_tokens=self.user_model.n_user_tokens)
        return self.model_copy(update={"user_model": uniform, "alpha": 0.0})

    def portable(self) -> dict[str, object]:
        """What makes the weights, as JSON for checkpoints and bundles: file names stand for this machine's paths."""
        values = self.model_dump(mode="json", exclude={"generate", "bank", "cluster_names", "decoding", "log_with"})
        test = None if self.test is None else self.test.name
        return values | {"train": self.train.name, "test": test, "model": Path(self.model).name}


def upgraded(identity: dict[str, object]) -> dict[str, object]:
    """What `portable` of an earlier version wrote, as this version does: settings that it did not know are defaults.

    Unchanged when it is not a run of this version at all.
    """
    settings = {name: value for name, value in identity.items() if name in RunConfig.model_fields}
    try:
        run = RunConfig.model_validate_json(json.dumps(settings))
    except ValidationError:
        return identity
    return {**identity, **run.portable()}
