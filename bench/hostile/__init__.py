"""What one caller can do to the others."""

from bench.experiment import Experiment, Line, at_least, at_most

EXPERIMENTS = (
    Experiment(
        "hostile-requests",
        "make hostile-requests",
        (
            Line(
                "H1-requests",
                "Do hostile requests get a documented answer, and others theirs at most a second later?",
                (
                    at_least("cases", 300),
                    at_most("undocumented", 0),
                    at_most("worst_wait_s", 1),
                    at_least("same_process", 1),
                ),
            ),
        ),
        minutes=5,
        module="bench.hostile.requests",
    ),
)
