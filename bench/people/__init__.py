"""Votes of real people."""

from bench.experiment import Experiment, Line, at_least

EXPERIMENTS = (
    Experiment(
        "real-people",
        "make real-people",
        (
            Line(
                "B4",
                "Does personalizing help to predict real people?",
                (at_least("llmfao/by_pair/gain_macro/points", 4),),
            ),
        ),
        minutes=60,
        needs="../shared/data",
        module="bench.people.real_people",
    ),
)
