"""What only a GPU shows, and what can be shown of it without one."""

from bench.experiment import Experiment

EXPERIMENTS: tuple[Experiment, ...] = ()
