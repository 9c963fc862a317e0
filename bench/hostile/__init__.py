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
    Experiment(
        "heart",
        "make heart",
        (
            Line(
                "H3",
                "Is an engine that hangs or dies noticed and replaced, and do streams end whole or with a reason?",
                (
                    at_least("rounds", 20),
                    at_least("exit_status_1", 20),
                    at_least("back", 20),
                    at_most("not_ready_s/*", 10),
                    at_most("gone_s/*", 60),
                    at_most("without_a_reason", 0),
                    at_most("sigterm/*/without_a_reason", 0),
                    at_most("sigterm/*/beyond_their_time_s", 2),
                ),
            ),
        ),
        minutes=20,
        module="bench.hostile.heart",
    ),
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
    Experiment(
        "storm",
        "make storm",
        (
            Line(
                "H2",
                "Do polite callers notice twenty hostile ones on the same server?",
                (
                    at_least("storm_s", 300),
                    at_least("hostile_kinds", 10),
                    at_least("throughput", 0.9),
                    at_most("polite_failed", 0),
                    at_most("memory", 1.1),
                    at_most("answered_5xx", 0),
                    at_least("same_process", 1),
                    at_least("same_processes", 1),
                ),
            ),
        ),
        minutes=11,
        module="bench.hostile.storm",
    ),
    Experiment(
        "greedy",
        "make greedy",
        (
            Line(
                "H5-store",
                "Do one user's 100,000 votes, 10,000 erasures, a full Redis or a full disk cost others anything?",
                (
                    at_least("offered", 100_000),
                    at_least("greedy_gone", 1),
                    at_most("neighbour/failed", 0),
                    at_most("votes_wait_s", 1),
                    at_most("erasures_wait_s", 1),
                    at_most("full_redis/lost", 0),
                    at_least("full_redis/user_gone", 1),
                    at_least("full_redis/taken_after", 1),
                    at_most("full_disk/lost", 0),
                    at_most("full_disk/replies_failed", 0),
                    at_most("full_disk/back_s", 60),
                    at_least("same_process", 1),
                ),
            ),
        ),
        minutes=10,
        module="bench.hostile.greedy",
    ),
)
