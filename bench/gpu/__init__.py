"""What only a GPU shows, and what can be shown of it without one."""

from bench.experiment import Experiment, Line, at_least, at_most

EXACT = ("alone_equals_crowd", "text_equals_rows", "user_changes_reply", "shared_prefix_found")

EXPERIMENTS = (
    Experiment(
        "gpu",
        "make gpu",
        (
            Line(
                "U3",
                "On a GPU: is it exact, and as fast as vLLM without users?",
                (
                    at_most("failed", 0),
                    at_least("exact/alone_equals_crowd", 1),
                    at_least("lora/alone_equals_crowd", 1),
                    at_most("exact/over_hf_in_this_type", 1),
                    at_most("lora/over_hf_in_this_type", 1),
                    at_least("speed/256/median", 0.99),
                    at_least("adapter/median", 0.9),
                ),
            ),
        ),
        minutes=5,
        needs="an NVIDIA GPU of 80 GB",
        module="bench.gpu.check",
    ),
    Experiment(
        "gpu-dry",
        "make gpu",
        (
            Line(
                "U3-dry",
                "Do the steps of `make gpu` run and agree with Hugging Face, on a CPU?",
                (
                    at_most("failed", 0),
                    *(at_least(f"{step}/{what}", 1) for step in ("exact", "lora") for what in EXACT),
                    at_most("exact/mean_difference_to_hf_float32", 1e-4),
                    at_most("lora/mean_difference_to_hf_float32", 1e-4),
                ),
            ),
        ),
        minutes=4,
    ),
)
