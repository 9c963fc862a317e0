"""The images, built from their Dockerfiles and used from the documentation, on a machine without a container engine."""

from bench.experiment import Experiment, Line, at_least, at_most

EXPERIMENTS = (
    Experiment(
        "first-hour",
        "make first-hour",
        (
            Line(
                "U4",
                "Do the images start as the documentation says, and keep votes?",
                (
                    at_least("done/*", 1),
                    at_most("gigabytes/*", 12),
                ),
            ),
            Line(
                "U5",
                "How many commands of the documentation were run on the images, as they stand there?",
                (at_least("run/*", 4),),
            ),
        ),
        minutes=15,
        needs="root, buildah, mmdebstrap",
        module="bench.images.first_hour",
    ),
)
