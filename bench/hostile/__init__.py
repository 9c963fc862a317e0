"""What hostile callers, hostile files and bad luck do."""

from bench.experiment import Experiment, Line, at_least, at_most

EXPERIMENTS = (
    Experiment(
        "hostile-bundles",
        "make hostile-bundles",
        (
            Line(
                "H4-bundles",
                "Is a changed bundle ever anything but refused in words, or read as it is?",
                (
                    at_least("mutants", 2000),
                    at_most("other_outcomes", 0),
                    at_most("large_not_refused", 0),
                    at_most("slowest_s", 1),
                ),
            ),
        ),
        minutes=1,
        module="bench.hostile.bundles",
    ),
)
