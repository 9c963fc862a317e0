"""What serving costs: throughput, first tokens, memory of users, CPU of a request, beside what a team would use."""

from bench.experiment import Experiment, Line, at_least, at_most

EXPERIMENTS = (
    Experiment(
        "throughput",
        "make throughput",
        (
            Line(
                "D1",
                "Do a million users slow replies down?",
                (at_least("1,000,000/median", 0.98), at_least("1,000,000 by Zipf's law/median", 0.98)),
            ),
            Line(
                "D2",
                "Is a personalized reply as fast as a plain one of vLLM?",
                (
                    at_least("in_process/median", 0.97),
                    at_least("over_vllm_serve/*/median", 1.0),
                    at_least("over_vllm_serve_in_one_process/*/median", 1.0),
                    at_least("in_process_tiny_model/median", 0.9),
                ),
            ),
        ),
        minutes=30,
        module="bench.serving.throughput",
    ),
    Experiment(
        "host-cost",
        "make host-cost",
        (
            Line(
                "D3",
                "What CPU time does personalizing add to a request, and does it grow with the prompt?",
                (
                    at_most("1_at_once/*/added_ms/all", 1.5),
                    at_most("8_at_once/*/added_ms/all", 1.5),
                    at_most("1_at_once/long_over_short", 1.1),
                    at_most("8_at_once/long_over_short", 1.1),
                    at_most("work/long_over_short", 1.1),
                ),
            ),
        ),
        minutes=20,
        module="bench.serving.host_cost",
    ),
    Experiment(
        "peers",
        "make peers",
        (
            Line(
                "D4",
                "How much faster than one LoRA per user?",
                (
                    at_least("32 users, max_loras 8/median", 1.2),
                    at_least("32 users, max_loras 32/median", 1.2),
                    at_least("1000 users, max_loras 32/median", 2.0),
                    at_least("ours, 1000 users over 1/median", 0.95),
                ),
            ),
        ),
        minutes=30,
        module="bench.serving.peers",
    ),
    Experiment(
        "one-at-a-time",
        "make one-at-a-time",
        (
            Line(
                "D5",
                "How much faster than Hugging Face one prompt at a time, and than a history in the prompt?",
                (
                    at_least("without_kv_cache/median", 20),
                    at_least("first_token_of_history/another_user_each_time/median", 3),
                ),
            ),
        ),
        minutes=20,
        module="bench.serving.one_at_a_time",
    ),
    Experiment(
        "first-token",
        "make first-token",
        (Line("D6", "What does the place after the system prompt save of the first token?", (at_least("median", 4),)),),
        minutes=10,
        module="bench.serving.first_token",
    ),
    Experiment(
        "million-users",
        "make million-users",
        (
            Line(
                "D7",
                "What do a million users take in Redis, and how fast are they found?",
                (
                    at_most("redis_bytes_a_user", 64),
                    at_least("loaded_users_a_second", 50_000),
                    at_most("lookup_ms/store/p99", 2),
                    at_most("lookup_ms_demo_model/store/p99", 2),
                    at_most("lookup_ms/cache/p99", 0.05),
                    at_most("lookup_ms_demo_model/cache/p99", 0.05),
                ),
            ),
            Line(
                "D8",
                "Does the server's memory grow with the users it has seen?",
                (at_most("server", 1.03), at_most("all", 1.03)),
            ),
        ),
        minutes=30,
        module="bench.serving.million_users",
    ),
    Experiment(
        "busy-host",
        "make busy-host",
        (
            Line(
                "D9",
                "How much of its speed does the engine keep on cores that others use, too?",
                (at_least("of_its_speed_alone/on any core/beside one per core/median", 0.4),),
            ),
        ),
        minutes=10,
        module="bench.serving.busy_host",
    ),
    Experiment(
        "before-after",
        "make before-after OTHER=FOLDER",
        (
            Line(
                "R4",
                "Is this checkout's server as fast as another's?",
                (at_least("tokens_per_s", 0.99), at_most("cpu_per_request", 1.02), at_most("lookup", 1.02)),
            ),
        ),
        minutes=15,
        needs="another checkout with its own .venv",
    ),
)
