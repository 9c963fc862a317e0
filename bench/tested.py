"""Lines that tests measure: `make evidence` runs them and keeps what they find."""

from bench.experiment import Experiment, Line, at_least, at_most

EXPERIMENTS = (
    Experiment(
        "evidence",
        "make evidence",
        (
            Line(
                "A3",
                "Are served log-probabilities the trainer's?",
                (at_most("max_abs_difference", 1e-3), at_least("triples_each", 20)),
            ),
            Line("A4", "Does a reply depend on who is served beside it?", (at_least("equal_to_solo", 32),)),
            Line(
                "A5",
                "Is a shared system prompt computed once for all users?",
                (at_least("after_system/cached_for_second_user", 308), at_most("after_bos/cached_for_second_user", 0)),
            ),
            Line(
                "A6",
                "Can bad input stop the engine?",
                (
                    at_least("answers_afterwards", 1),
                    at_least("bad_requests", 40),
                    at_least("flipped_bytes_refused", 35),
                ),
            ),
            Line(
                "A7",
                "What happens while Redis is away?",
                (at_most("generate_5xx", 0), at_most("votes_lost", 0), at_most("votes_twice", 0)),
            ),
            Line("A8", "Does everything pass from a fresh clone?", (at_most("failed", 0), at_most("wall_s", 1500))),
            Line("B7", "Are gradients right, and does a resumed run equal a straight one?"),
            Line(
                "B8",
                "Can a mutated file crash the trainer?",
                (at_most("tracebacks", 0), at_most("errors_without_place", 0)),
            ),
            Line(
                "M4",
                "Is a data file as it comes read, or its fault named?",
                (
                    at_least("odd_files", 60),
                    at_least("mutated", 2000),
                    at_most("tracebacks", 0),
                    at_most("errors_without_place", 0),
                    at_most("unaccounted", 0),
                ),
            ),
            Line(
                "C5",
                "Can a code be rebuilt from votes, bit for bit?",
                (at_least("replayed", 1), at_least("reversed_order", 1), at_least("vote_taken_back", 1)),
            ),
            Line("C6", "Is a byte of an erased user left?", (at_most("found", 0),)),
            Line(
                "M2-train",
                "Are the trainer's log-probabilities the model's own, for each architecture?",
                (at_least("architectures", 12), at_most("worst_difference_nats/*", 1e-4)),
            ),
            Line(
                "R1",
                "Does a wheel serve beside an application with folders of the same names?",
                (at_least("served", 1), at_least("packages_from_the_wheel", 4)),
            ),
            Line(
                "R2",
                "Is the service imported without an engine, and quickly?",
                (at_most("heavy_modules", 0), at_most("import_s", 2)),
            ),
            Line(
                "M1",
                "Are user tokens in their place, in chat templates of every style?",
                (at_least("styles", 16), at_least("conversations/*", 80), at_most("wrong", 0)),
            ),
            Line(
                "M3",
                "Is any change of a model noticed, and how long does the look take when nothing changed?",
                (at_least("changes", 200), at_most("unnoticed", 0), at_most("second_start_s", 1)),
            ),
            Line(
                "U1",
                "Does vLLM's CUDA wheel make of our arguments what a GPU host needs?",
                (at_least("configurations_as_expected", 8),),
            ),
            Line("U2", "What is left of an engine whose server was killed?", (at_most("left_after_5_s/*", 0),)),
            Line(
                "R3",
                "Do two bundles on one engine ever mix?",
                (
                    at_least("interleaved", 200),
                    at_most("wrong", 0),
                    at_most("cache_entries", 0),
                    at_most("tasks", 0),
                    at_most("listeners", 0),
                ),
            ),
        ),
        minutes=15,
    ),
)
