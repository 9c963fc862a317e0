"""The learning curve of a run: `log.jsonl`, a line per step, and the trackers that the run asks for.

The file is the memory of early stopping: after a crash it is cut back to the checkpoint, and what was best, and for
how long nothing was better, is read from it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker

LOG = "log.jsonl"
TRACKERS = {
    "tensorboard": lambda out: TensorBoardTracker(out.name, logging_dir=out / "tensorboard"),
    "wandb": lambda out: WandBTracker("idiolect", name=out.name, dir=str(out)),
}


class Curve:
    """Records of the steps so far, and the file that keeps them."""

    def __init__(self, out: Path, log_with: Sequence[str], done: int, writes: bool) -> None:
        """Keeps the lines of `out`'s log up to step `done`; `writes` is false for all but the main process."""
        self.records = [record for record in read_curve(out) if record["step"] <= done]
        self._trackers: list[GeneralTracker] = [TRACKERS[name](out) for name in log_with]
        for tracker in self._trackers:
            tracker.start()
        self._file = None
        if writes:
            partial = out / f".{LOG}"
            partial.write_text("".join(json.dumps(record) + "\n" for record in self.records))
            partial.replace(out / LOG)
            self._file = (out / LOG).open("a")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        for tracker in self._trackers:
            tracker.finish()

    def add(self, record: dict[str, Any], tokens_per_s: float) -> None:
        """One step. The speed goes to the trackers alone: the log of a resumed run equals that of a straight one."""
        self.records.append(record)
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        values = {name: value for name, value in record.items() if name != "step"}
        for tracker in self._trackers:
            tracker.log(values | {"tokens_per_s": tokens_per_s}, step=record["step"])

    @property
    def first_loss(self) -> float | None:
        return self.records[0]["loss"] if self.records else None

    @property
    def best(self) -> float:
        """The best held-out accuracy so far; -1 before the first."""
        return max(self._held_out(), default=-1.0)

    def stale(self, patience: int) -> bool:
        """Whether the last `patience` evaluations brought nothing better than the best before them."""
        accuracies = self._held_out()
        return len(accuracies) > patience and max(accuracies[-patience:]) <= max(accuracies[:-patience])

    def _held_out(self) -> list[float]:
        return [record["held_out_accuracy"] for record in self.records if "held_out_accuracy" in record]


def read_curve(out: Path) -> list[dict[str, Any]]:
    """The records of a run folder; a line that a crash cut short ends them."""
    records = []
    if (out / LOG).is_file():
        for line in (out / LOG).read_text().splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                break
    return records
