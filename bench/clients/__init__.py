"""Clients that nobody here wrote."""

from bench.experiment import Experiment, Line, at_least, at_most

EXPERIMENTS = (
    Experiment(
        "openapi",
        "make openapi",
        (
            Line(
                "K1-openapi",
                "Is what the server answers what its OpenAPI document says, for requests that are right and wrong?",
                (
                    at_least("cases", 10_000),
                    at_least("routes", 16),
                    at_most("undeclared_statuses", 0),
                    at_most("schema_violations", 0),
                    at_most("server_errors", 0),
                    at_most("wrong_and_accepted", 0),
                    at_most("memory", 1.1),
                ),
            ),
        ),
        minutes=20,
        module="bench.clients.openapi",
    ),
    Experiment(
        "vllm-tests",
        "make vllm-tests",
        (
            Line(
                "K2-vllm",
                "Do vLLM's own tests of its OpenAI server pass here where they pass on `vllm serve`?",
                (at_least("tests", 150), at_most("without_a_reason", 0)),
            ),
        ),
        minutes=40,
        module="bench.clients.vllm_tests",
    ),
    Experiment(
        "generated-clients",
        "make generated-clients",
        (
            Line(
                "K4-generated",
                "Do clients that are generated from the OpenAPI document, in Python and TypeScript, do all of it?",
                (at_least("operations", 20), at_least("share_called", 1), at_most("faults", 0)),
            ),
        ),
        minutes=4,
        needs="npm",
        module="bench.clients.generated",
    ),
    Experiment(
        "clients",
        "make clients",
        (
            Line(
                "K3",
                "Can clients that nobody here wrote do all that personalizing needs, unmodified?",
                (at_most("false", 0), at_least("clients", 9), at_least("true", 50), at_most("null", 4)),
            ),
        ),
        minutes=15,
        needs="node and npm",
        module="bench.clients.frameworks",
    ),
)
