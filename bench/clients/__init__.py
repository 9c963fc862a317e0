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
