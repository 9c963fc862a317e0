"""Plots of what `make bench` has measured: users against throughput, prompt length against added cost, lookup times.

Reads docs/results/{throughput,peers,host_cost,million_users}.json, writes docs/results/serving.{png,svg}.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from tests.live import ROOT

RESULTS = ROOT / "docs" / "results"
LOADS = {
    "lookup_ms": "replies of the tiny model",
    "lookup_ms_demo_model": "replies of the demo model",
    "lookup_ms_without_replies": "no replies",
}


def read(name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return values


def users(panel: Axes) -> None:
    """Tokens per second by users, ours over ours with ten; one LoRA per user over ours with as many."""
    found = read("throughput")["users_over_ten"]
    crowds = {name: int(name.replace(",", "")) for name in found if name.replace(",", "").isdigit()}
    ours = [(10, 1.0, 1.0, 1.0)] + [
        (n, found[name]["median"], min(found[name]["ratios"]), max(found[name]["ratios"])) for name, n in crowds.items()
    ]
    x, y, low, high = zip(*ours, strict=True)
    error = [[a - b for a, b in zip(y, low, strict=True)], [b - a for a, b in zip(y, high, strict=True)]]
    panel.errorbar(x, y, error, marker="o", capsize=3, label="user tokens, over 10 users")
    best: dict[int, float] = {}
    for name, ratio in read("peers")["one_lora_per_user"].items():
        if "max_loras" in name:
            n = int(name.split()[0])
            best[n] = max(best.get(n, 0.0), 1 / ratio["median"])
    panel.plot(*zip(*sorted(best.items()), strict=True), marker="s", label="one LoRA per user, over user tokens")
    panel.set(xscale="log", xlabel="users", ylabel="tokens per second, relative", ylim=(0, 1.2), title="Users")
    panel.legend(loc="center left", bbox_to_anchor=(0, 0.65))


def prompt_length(panel: Axes) -> None:
    """What a user adds to a request: host work by its steps, timed alone, and CPU of all processes."""
    found = read("host_cost")
    lengths = [name for name in found["work"] if name.endswith("_tokens")]
    marks = [name.removesuffix("_tokens") for name in lengths]
    bottom = [0.0] * len(lengths)
    for step in found["work"][lengths[0]]["added_us"]:
        if step != "all":
            added = [found["work"][name]["added_us"][step] / 1000 for name in lengths]
            panel.bar(marks, added, bottom=bottom, label=f"alone: {step}")
            bottom = [one + more for one, more in zip(bottom, added, strict=True)]
    for case, shape in (("1_at_once", "v"), ("8_at_once", "^")):
        total = [found[case][name]["added_ms"]["all"] for name in lengths]
        panel.plot(marks, total, shape, color="black", label=f"CPU of all processes, {case.replace('_', ' ')}")
    panel.set(xlabel="prompt tokens", ylabel="added, ms per request", title="Prompt length", ylim=(0, 2.5))
    panel.legend(loc="upper left", fontsize="small")


def lookups(panel: Axes) -> None:
    """Upper bounds of the times from user id to user tokens."""
    found = read("million_users")
    marks = [f"p{share}" for share in (50, 90, 99)]
    for name, load in LOADS.items():
        for source, style in (("store", "-"), ("cache", ":")):
            values = [found[name][source][mark] for mark in marks]
            panel.plot(marks, values, style, marker="o", label=f"{source}, {load}")
    panel.set(yscale="log", ylabel="ms, upper bound", title="Lookup of a user, 1,000,000 known")
    panel.legend(loc="upper left", fontsize="small", bbox_to_anchor=(1, 1))


def main() -> None:
    figure, panels = plt.subplots(1, 3, figsize=(17, 4))
    for panel, draw in zip(panels, (users, prompt_length, lookups), strict=True):
        draw(panel)
    figure.tight_layout()
    for ending in ("png", "svg"):
        figure.savefig(Path(RESULTS / f"serving.{ending}"), dpi=110)


if __name__ == "__main__":
    main()
