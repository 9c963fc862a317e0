"""Save and resume a run: trainable weights, optimizer moments and the step, as safetensors.

Nothing random is stored: every draw of a run derives from (seed, epoch) or (seed, step), so a resumed run repeats
what the straight one would have done.
"""

import json
import os
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from idiolect.trained_votes import Digests, TrainedVotes
from idiolect_training.config import upgraded
from idiolect_training.errors import CheckpointMismatch
from idiolect_training.users.user_rows import Rows

Parameters = dict[str, torch.nn.Parameter]
VOTES = "trained_votes"


def save_checkpoint(
    path: Path,
    step: int,
    run: dict[str, object],
    parameters: Parameters,
    rows: Rows,
    optimizer: torch.optim.Optimizer,
    votes: Digests,
) -> None:
    """Write atomically: a crash leaves the previous checkpoint. Of the users' rows, only those ever trained.

    `votes` are the ones that have trained them so far (idiolect/trained_votes.py).
    """
    tensors: dict[str, Tensor] = {f"rows/{name}": value for name, value in rows.touched().items()}
    tensors[VOTES] = torch.from_numpy(np.unique(votes).view(np.int64))
    for name, parameter in parameters.items():
        tensors[f"weight/{name}"] = parameter.detach().cpu().contiguous()
        for moment, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{moment}/{name}"] = value.detach().cpu().contiguous()
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"step": str(step), "run": json.dumps(run, sort_keys=True)})
    os.replace(partial, path)


def load_checkpoint(
    path: Path, run: dict[str, object], parameters: Parameters, rows: Rows, optimizer: torch.optim.Optimizer | None
) -> int:
    """Restore in place and return the step. Raises CheckpointMismatch when another run wrote the file."""
    try:
        opened = safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointMismatch(f"{path}: not a checkpoint: {error}", hint="use a new --out folder") from error
    with opened as file:
        metadata = file.metadata()
        if upgraded(json.loads(metadata["run"])) != run:
            raise CheckpointMismatch(f"{path} was written by another run configuration", hint="use a new --out folder")
        names = set(file.keys())
        with torch.no_grad():
            for name, parameter in parameters.items():
                weight = file.get_tensor(f"weight/{name}")
                if weight.shape != parameter.shape:
                    raise CheckpointMismatch(f"{path}: {name} has shape {tuple(weight.shape)}")
                parameter.copy_(weight)
                if optimizer is not None and f"step/{name}" in names:
                    optimizer.state[parameter] = {
                        moment: file.get_tensor(f"{moment}/{name}").to(parameter.device)
                        for moment in ("step", "exp_avg", "exp_avg_sq")
                    }
        rows.restore({name: file.get_tensor(f"rows/{name}") for name in ("index", *Rows.STATE)})
        return int(metadata["step"])


def read_trained_votes(path: Path) -> TrainedVotes | None:
    """The votes that trained their users' rows; None where there are none, or an earlier version wrote the file."""
    with safe_open(path, framework="np") as file:
        digests = file.get_tensor(VOTES).view(np.uint64) if VOTES in file.keys() else None  # noqa: SIM118
    return None if digests is None or not len(digests) else TrainedVotes(digests)
