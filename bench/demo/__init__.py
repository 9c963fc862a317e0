"""What a newcomer meets: the demo bundle, its tastes and words, strangers, and one's own data."""

from bench.experiment import Experiment, Line, at_least, at_most

EXPERIMENTS = (
    Experiment(
        "tastes",
        "make tastes",
        (
            Line(
                "G1",
                "Do personalized replies stay good language?",
                (
                    at_most("repeated_4grams_over_generic", 0.02),
                    at_most("looping", 0.05),
                    at_most("unexplained_nats_per_token", 0.3),
                ),
            ),
            Line(
                "G2",
                "Do known users get what they want?",
                (
                    at_least("short_to_thorough", 2.5),
                    at_least("lists", 0.8),
                    at_most("prose_lists", 0.1),
                    at_least("warm_over_plain", 0.6),
                ),
            ),
            Line(
                "G3",
                "Do strangers get what they want after five answers?",
                (
                    at_least("strangers_who_show_all", 0.9),
                    at_most("calls_for_answers", 0),
                    at_most("answer_p99_ms", 10),
                ),
            ),
        ),
        minutes=30,
        module="bench.demo.tastes",
    ),
    Experiment(
        "first-minutes",
        "make first-minutes",
        (
            Line(
                "G4",
                "How long from a fresh clone to the end of `make demo`?",
                (at_most("exit_code", 0), at_most("first_s", 600), at_most("cached_s", 120)),
            ),
        ),
        minutes=10,
        module="bench.demo.first_minutes",
    ),
    Experiment(
        "own-data",
        "make own-data",
        (
            Line(
                "G6",
                "How long from 200 comparisons to a served bundle that infers a stranger?",
                (at_most("commands", 5), at_most("lines", 200), at_least("questions", 1), at_least("answers", 1)),
            ),
        ),
        minutes=20,
        module="bench.demo.own_data",
    ),
    Experiment("penalty", "make penalty", (), minutes=10, module="bench.demo.penalty"),
)
