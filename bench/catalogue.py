"""All experiments, by room, and the lines that they answer."""

from bench import clients, demo, faults, gpu, hostile, images, learning, models, page, people, serving, tested, trainer
from bench.experiment import Experiment, Line

EXPERIMENTS: tuple[Experiment, ...] = (
    *demo.EXPERIMENTS,
    *learning.EXPERIMENTS,
    *people.EXPERIMENTS,
    *serving.EXPERIMENTS,
    *trainer.EXPERIMENTS,
    *faults.EXPERIMENTS,
    *hostile.EXPERIMENTS,
    *clients.EXPERIMENTS,
    *gpu.EXPERIMENTS,
    *images.EXPERIMENTS,
    *models.EXPERIMENTS,
    *page.EXPERIMENTS,
    *tested.EXPERIMENTS,
)


def find(line_id: str) -> tuple[Experiment, Line]:
    """The line of that id, and its experiment. Raises KeyError."""
    for experiment in EXPERIMENTS:
        for line in experiment.lines:
            if line.id == line_id:
                return experiment, line
    raise KeyError(line_id)
