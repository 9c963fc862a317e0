"""What is learnt of users: simulated ones, whose wishes are known, and new ones whom the trainer never saw."""

from bench.experiment import Experiment, Line, at_least, at_most

EXPERIMENTS = (
    Experiment(
        "length-users",
        "make length-users",
        (
            Line(
                "B1",
                "Do ten simulated users who disagree about length each get their own?",
                (
                    at_least("cluster/mean", 0.9),
                    at_least("cluster/worst_user", 0.8),
                    at_least("individual/mean", 0.9),
                    at_least("individual/worst_user", 0.8),
                ),
            ),
        ),
        minutes=180,
        module="bench.learning.length_users",
    ),
    Experiment(
        "attribute-users",
        "make attribute-users",
        (Line("B2", "Do three opposed pairs of users each get their own?", (at_least("individual/diagonal", 0.85),)),),
        minutes=180,
        module="bench.learning.attribute_users",
    ),
    Experiment(
        "persona-users",
        "make persona-users",
        (Line("B3", "Does the cluster model find the kinds of users?", (at_least("ari", 0.9),)),),
        minutes=180,
        needs="../shared/data",
        module="bench.learning.persona_users",
    ),
    Experiment(
        "ablations",
        "make ablations",
        (Line("B5", "What do user tokens, alpha, start, votes and placement each do?"),),
        minutes=180,
        module="bench.learning.ablations",
    ),
    Experiment(
        "few-votes",
        "make few-votes",
        (
            Line(
                "M6",
                "Do users of few votes stay near the generic user, and is that good for them?",
                (
                    at_least("distance_grows", 1),
                    at_least("distance_falls", 1),
                    at_least("default_is_likeliest", 1),
                    at_least("few_votes_accuracy_over_generic", 0),
                ),
            ),
        ),
        minutes=45,
        module="bench.learning.few_votes",
    ),
    Experiment(
        "five-answers",
        "make five-answers",
        (
            Line(
                "C3",
                "Do five answers change what a new user is told?",
                (at_least("share_within_the_trained_spread", 1),),
            ),
        ),
        minutes=15,
        needs="the runs of length-users",
        module="bench.learning.five_answers",
    ),
    Experiment(
        "feedback",
        "make feedback",
        (
            Line(
                "C4",
                "How long does a vote take, and what does scoring in the background cost replies?",
                (
                    at_most("latency/in_the_server_ms/p99", 5),
                    at_most("latency/model_calls", 0),
                    at_least("throughput/median", 0.95),
                ),
            ),
        ),
        minutes=20,
        needs="the runs of length-users",
        module="bench.learning.feedback",
    ),
    Experiment(
        "weak-votes",
        "make weak-votes",
        (
            Line(
                "M7",
                "What do thumbs and edits tell of a stranger, and how much should they count?",
                (at_least("weights_are_the_chosen", 1),),
            ),
        ),
        minutes=5,
        module="bench.learning.weak_votes",
    ),
    Experiment(
        "vote-histories",
        "make vote-histories",
        (
            Line(
                "M5",
                "Do server, export, reader and fit count the same votes, and none twice after a retraining?",
                (at_least("histories", 500), at_most("disagreements/*", 0), at_most("counted_twice", 0)),
            ),
        ),
        minutes=2,
        module="bench.learning.vote_histories",
    ),
)
