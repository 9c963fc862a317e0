"""The page, in a real browser."""

from bench.experiment import Experiment, Line, at_least, at_most

EXPERIMENTS = (
    Experiment(
        "page-minute",
        "make page-minute",
        (
            Line(
                "F1",
                "Does a stranger see the reply change, and come back when forgotten, within a minute?",
                (
                    at_most("page_s", 60),
                    at_most("with_setup_s", 600),
                    at_least("changed_words", 1),
                    at_least("first_reply_is_back", 1),
                    at_least("votes_erased", 5),
                ),
            ),
            Line(
                "F2-paint",
                "Is the page there at once, and small?",
                (at_most("first_paint_ms/all", 1000), at_most("gz_bytes", 60_000), at_most("other_hosts", 0)),
            ),
        ),
        minutes=3,
        needs="npm and Chromium",
        module="bench.page.minute",
    ),
    Experiment(
        "page-views",
        "make page-views",
        (
            Line(
                "F2",
                "Do all views work, by keyboard alone, on both widths, light and dark, with engine or store gone?",
                (at_least("green_in_a_row", 5), at_most("skipped", 0), at_least("tests", 25)),
            ),
        ),
        minutes=8,
        needs="npm and Chromium",
        module="bench.page.views",
    ),
)
