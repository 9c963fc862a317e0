"""What hostile callers, odd values in Redis and too much work do."""

from bench.experiment import Experiment, Line, at_least, at_most

EXPERIMENTS = (
    Experiment(
        "odd-values",
        "make odd-values",
        (
            Line(
                "H4-redis",
                "Does an odd value in Redis ever fail a request, or keep a user from being erased?",
                (
                    at_least("values", 2000),
                    at_least("kinds_of_key", 16),
                    at_most("other_outcomes", 0),
                    at_least("same_process", 1),
                ),
            ),
        ),
        minutes=10,
        module="bench.hostile.odd_values",
    ),
    Experiment(
        "overload",
        "make overload",
        (
            Line(
                "H5-overload",
                "What does a server do with ten times the requests that it can answer?",
                (
                    at_least("offered_over_capacity", 9.5),
                    at_least("goodput", 0.9),
                    at_most("refused_ms/p95", 50),
                    at_most("other_answers", 0),
                    at_least("after", 0.9),
                    at_most("memory", 1.1),
                ),
            ),
        ),
        minutes=5,
        module="bench.hostile.overload",
    ),
)
