"""What the trainer costs: steps, memory and speed, with many users and beside TRL."""

from bench.experiment import Experiment, Line, at_least, at_most

EXPERIMENTS = (
    Experiment(
        "trainer-cost",
        "make trainer-cost",
        (
            Line(
                "B6",
                "What do users cost the trainer?",
                (at_most("seconds_a_step_1m_over_10_users/*", 1.05), at_least("tokens_a_second_over_trl", 1.0)),
            ),
        ),
        minutes=40,
        needs="trl",
        module="bench.trainer.trainer_cost",
    ),
)
