"""What survives when parts die."""

from bench.experiment import Experiment, Line, at_least, at_most

EXPERIMENTS = (
    Experiment(
        "crashes",
        "make crashes",
        (
            Line(
                "C7",
                "Is an acknowledged vote ever lost, or counted twice?",
                (at_most("lost", 0), at_most("counted_twice", 0), at_least("counts_equal", 1)),
            ),
        ),
        minutes=6,
        module="bench.faults.crashes",
    ),
)
