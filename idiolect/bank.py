"""The question bank of a bundle: pairs of replies to ask a new user about, and what each answer means.

Two files. `bank.jsonl` has a question per line: {"messages", "first", "second"}. `bank.safetensors` has, in float64,
what inference needs (docs/bundle-format.md): the margin of `first` over `second`, in nats, is offsets + slopes . z for
a user at z, the trained users lie around `mean` with `covariance`, and `origin` + z . `directions` is the served code.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors.numpy import save_file
from typing_extensions import TypedDict  # that of Python 3.11 does not say which keys are required

from idiolect.errors import BundleCorrupt, BundleShapeMismatch
from idiolect.files.document import first_fault, parse
from idiolect.files.folder import QUESTIONS, TABLE, Folder
from idiolect.files.tensors import read_tensors
from idiolect.inference.priors import Gaussian, Mixture, Prior, Simplex
from idiolect.text import Text
from idiolect.user_model import Array, Kind, UserModel
from idiolect.votes import DEFAULT_TIES, Belief, Floats, Likelihood, Votes

TRUST = 0.75
"""How much more a trained user's code counts than the population, before any vote after training."""
NO_REPLY = ""
"""The side of a thumb that there is no reply for: it has no tokens, and is as likely under every code."""
MAX_QUESTION_BYTES = 1 << 18
LARGEST_MARGIN = 1e6
"""Of every number in `bank.safetensors`: nats or coordinates. Beyond it, what is inferred from votes may overflow."""
FLATTEST = 1e-10
"""The least share of its largest variance that a covariance may have in another direction: it is inverted."""


class Message(TypedDict):
    """A turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text


class Question(BaseModel):
    """Two replies to a conversation; which does the user prefer? `first` comes first in the alphabet."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    messages: tuple[Message, ...] = Field(min_length=1)
    first: Text
    second: Text

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.first >= self.second:
            raise ValueError("first does not come before second")
        return self

    @property
    def question_id(self) -> str:
        """16 hex digits of the content."""
        return pair_id(self.messages, self.first, self.second)


def pair_id(messages: Any, one: str, other: str) -> str:
    """16 hex digits of a conversation and two replies, whichever of them comes first."""
    content = json.dumps([list(messages), *sorted((one, other))], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Bank:
    """n questions, and C coordinates in which users are inferred."""

    questions: tuple[Question, ...]
    slopes: Floats  # [n, C]
    offsets: Floats  # [n]
    origin: Floats  # [code_size]
    directions: Floats  # [C, code_size]
    mean: Floats  # [C]
    covariance: Floats  # [C, C]
    likelihood: Likelihood
    blended: bool = False
    """Of cluster models: users are blends of clusters, rather than each in one of them."""
    length_normalized: bool = False
    """Margins are of log-probabilities per token instead of a reply."""

    @cached_property
    def index(self) -> dict[str, int]:
        """Place of each question by its id."""
        return {question.question_id: place for place, question in enumerate(self.questions)}

    @cached_property
    def table(self) -> Votes:
        """Every question as if `first` had been preferred."""
        return Votes.of(self.slopes, self.offsets)

    def prior(self, user_model: UserModel, trained: Array | None = None) -> Prior:
        """Who a user may be: the trained population, or, for a trained user, mostly what training found."""
        mean, covariance = self.mean, self.covariance
        if trained is not None:
            mean = TRUST * self.coordinates(trained) + (1 - TRUST) * mean
            covariance = (1 - TRUST) * covariance
        return population(user_model.kind, mean, covariance, self.blended)

    def coordinates(self, code: Array) -> Floats:
        """z [C] of a code: exact for cluster and low-rank codes, the nearest point for individual ones."""
        found = np.linalg.lstsq(self.directions.T, code.astype(np.float64) - self.origin, rcond=None)[0]
        return np.asarray(found, np.float64)

    def code(self, user_model: UserModel, belief: Belief, trained: Array | None = None) -> Array:
        """The user code [code_size] of a belief about one user, as it is served.

        What a trained code has beside its coordinates is kept.
        """
        code: Floats = self.origin + belief.code @ self.directions
        if trained is not None:
            code = code + trained - (self.origin + self.coordinates(trained) @ self.directions)
        if user_model.kind == "cluster":
            code = np.maximum(code, 0) / np.maximum(code, 0).sum()
        return user_model.check(code.astype(np.float32))

    def write(self, folder: Path) -> None:
        """Both files, into the folder of a bundle."""
        lines = (question.model_dump_json() for question in self.questions)
        (folder / QUESTIONS).write_bytes("".join(f"{line}\n" for line in lines).encode())
        flags = [float(self.blended), float(self.length_normalized)]
        likelihood = [self.likelihood.temperature, self.likelihood.noise, *flags]
        if self.likelihood.ties != DEFAULT_TIES:  # readers from before there were ties know four numbers
            likelihood.append(self.likelihood.ties)
        tensors = {name: getattr(self, name) for name in _shapes(0, 0, 0)} | {"likelihood": np.array(likelihood)}
        save_file({name: np.ascontiguousarray(t, np.float64) for name, t in tensors.items()}, folder / TABLE)

    @classmethod
    def read(cls, files: Folder, n_questions: int, n_coordinates: int, code_size: int) -> Self:
        """Read and check both files. Raises BundleCorrupt, BundleShapeMismatch; each names the file."""
        questions = _questions(files.read(QUESTIONS), n_questions)
        shapes = _shapes(n_questions, n_coordinates, code_size) | {"likelihood": (-1,)}
        tensors = read_tensors(files.read(TABLE), TABLE, {name: ("F64", shape) for name, shape in shapes.items()})
        if any(tensor.size and np.abs(tensor).max() > LARGEST_MARGIN for tensor in tensors.values()):
            raise BundleCorrupt(f"{TABLE}: has a number beyond {LARGEST_MARGIN:g}")
        numbers = tensors.pop("likelihood").tolist()
        if len(numbers) not in (4, 5):
            raise BundleShapeMismatch(f"{TABLE}: likelihood has {len(numbers)} numbers instead of 4 or 5")
        temperature, noise, blended, length_normalized, ties = [*numbers, DEFAULT_TIES][:5]
        within = temperature >= 1 / LARGEST_MARGIN and 0 < noise < 1 and ties >= 1 / LARGEST_MARGIN
        if not (within and {blended, length_normalized} <= {0.0, 1.0}):
            raise BundleCorrupt(f"{TABLE}: the likelihood is impossible")
        covariance = tensors["covariance"]
        variances = np.linalg.eigvalsh(covariance)
        if not (np.allclose(covariance, covariance.T) and variances[0] > FLATTEST * variances[-1] > 0):
            raise BundleCorrupt(f"{TABLE}: the covariance is not symmetric, or has a direction without variance")
        flags = {"blended": bool(blended), "length_normalized": bool(length_normalized)}
        rest: dict[str, Any] = {**tensors, **flags}
        return cls(questions, likelihood=Likelihood(temperature, noise, ties=ties), **rest)


def population(kind: Kind, mean: Floats, covariance: Floats, blended: bool = False) -> Prior:
    """Users of that mean [C] and covariance [C, C], as a prior; see Bank.blended."""
    if kind != "cluster":
        return Gaussian(mean, covariance)
    share = np.maximum(mean, 1e-6) / np.maximum(mean, 1e-6).sum()
    if not blended:
        return Mixture(share)
    # Their total variance is that of the trained users.
    variance = max(float(np.trace(covariance)), 1e-9)
    return Simplex(share, max(float((share * (1 - share)).sum()) / variance, 0.1))


def _questions(raw: bytearray, n_questions: int) -> tuple[Question, ...]:
    """Raises BundleCorrupt, BundleShapeMismatch."""
    # Not splitlines, which also cuts at separators that JSON leaves as they are.
    content = bytes(raw).removesuffix(b"\n")
    if content.count(b"\n") + 1 != n_questions:
        raise BundleShapeMismatch(f"{QUESTIONS}: does not have the {n_questions} lines that the manifest says")
    lines = content.split(b"\n")
    if len(max(lines, key=len)) > MAX_QUESTION_BYTES:
        raise BundleCorrupt(f"{QUESTIONS}: has a line of more than {MAX_QUESTION_BYTES} bytes")
    try:
        questions = tuple(
            Question.model_validate_json(json.dumps(parse(line, f"{QUESTIONS}:{number}")))
            for number, line in enumerate(lines, 1)
        )
    except ValidationError as error:
        raise BundleCorrupt(f"{QUESTIONS}: {first_fault(error)}") from error
    if len({question.question_id for question in questions}) != n_questions:
        raise BundleCorrupt(f"{QUESTIONS}: a question stands there twice")
    return questions


def _shapes(n_questions: int, n_coordinates: int, code_size: int) -> dict[str, tuple[int, ...]]:
    return {
        "slopes": (n_questions, n_coordinates),
        "offsets": (n_questions,),
        "origin": (code_size,),
        "directions": (n_coordinates, code_size),
        "mean": (n_coordinates,),
        "covariance": (n_coordinates, n_coordinates),
    }
