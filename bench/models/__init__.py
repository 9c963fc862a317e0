"""Base models of other architectures than the demo's."""

from bench.experiment import Experiment, Line, at_least, at_most

EXPERIMENTS = (
    Experiment(
        "served-models",
        "make served-models",
        (
            Line(
                "M2",
                "Is what was trained served, for every architecture, adapter live and merged, by both injections?",
                (at_least("served", 12), at_most("difference_nats/*/*", 1e-3), at_most("failed", 0)),
            ),
        ),
        minutes=20,
        module="bench.models.served",
    ),
)
