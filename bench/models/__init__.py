"""Base models of other architectures than the demo's."""

from bench.experiment import Experiment, Line, at_least, at_most

EXPERIMENTS = (
    Experiment(
        "served-models",
        "make served-models",
        (
            Line(
                "M2",
                "Does vLLM serve what was trained, for every architecture?",
                (at_least("served", 12), at_most("difference_nats/*/*", 1e-3)),
            ),
        ),
        minutes=15,
        module="bench.models.served",
    ),
)
