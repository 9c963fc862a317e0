"""People: votes of real ones, and simulated strangers who slip, mislead and change."""

from bench.experiment import Experiment, Line, at_least, at_most

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
    Experiment(
        "ties",
        "make ties",
        (
            Line(
                "P4",
                "Real people who may have no preference: are strangers known by their choices and ties?",
                (at_least("llmfao/used/32/points", 4), at_least("llmfao/used/32/low", 1)),
            ),
            Line(
                "P4-simulated",
                "Simulated strangers who tie: do their ties help, and does it harm those who never do?",
                (at_least("who_ties/*", 0), at_least("nobody_ties/*", 0), at_least("worst/upper", 0)),
            ),
        ),
        minutes=20,
        needs="../shared/data",
        module="bench.people.ties",
    ),
    Experiment(
        "new-users",
        "make new-users",
        (
            Line(
                "C1",
                "How near does a new user come to the oracle with five answers?",
                (
                    at_least("accuracy/active_over_oracle_after_5", 0.95),
                    at_least("accuracy/never_below_generic", 1),
                    at_least("accuracy_with_coins/never_below_generic", 1),
                ),
            ),
            Line(
                "C2",
                "Is what is believed of a new user calibrated, and is a changed wish followed?",
                (at_most("expected_calibration_error", 0.05), at_most("recovered_after_votes", 8)),
            ),
        ),
        minutes=30,
        needs="the runs of length-users, attribute-users and persona-users",
        module="bench.people.new_users",
    ),
    Experiment(
        "newcomers",
        "make newcomers",
        (
            Line(
                "P1",
                "Newcomers who slip: how many answers until the server stops asking, and how often is it wrong then?",
                (at_most("*/over_floor", 1.5), at_most("*/wrong", 0.05), at_least("*/right_of_the_sure", 0.93)),
            ),
            Line(
                "P2",
                "People whom no taste explains: are they told so after sixteen votes, and are honest ones left alone?",
                (
                    at_least("coin/unexplained", 0.9),
                    at_least("always first/unexplained", 0.9),
                    at_least("contrarian/unexplained", 0.9),
                    at_least("*/over_generic", -3),
                    at_most("slips 0 %/lost_by_doubt", 1),
                    at_most("slips 10 %/lost_by_doubt", 1),
                ),
            ),
            Line(
                "P3",
                "After 200 votes: do slips switch a taste, does a change, and how often is a change seen that is none?",
                (
                    at_most("wrongly_switched_after_slips/4", 0.02),
                    at_most("regained_after/mean", 10),
                    at_most("false_alarms/slips 10%", 0.05),
                ),
            ),
        ),
        minutes=8,
        module="bench.people.newcomers",
    ),
)
