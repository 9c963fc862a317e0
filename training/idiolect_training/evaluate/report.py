"""Evaluations of several methods and seeds -> one Markdown table and its plots, PNG and SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from idiolect_training.evaluate.replies import GENERIC

Evaluation = dict[str, Any]
Found = Mapping[str, Sequence[Evaluation]]
Curves = Mapping[str, Sequence[Sequence[dict[str, Any]]]]

MAX_NAMED_USERS = 24
SMOOTHED_STEPS = 9


def write_report(found: Found, curves: Curves, out: Path, title: str) -> None:
    """report.md and its plots in the folder `out`. `found` and `curves` hold one entry a method, one item per seed."""
    out.mkdir(parents=True, exist_ok=True)
    drawn = {"users": draw_users(found), "curves": draw_curves(found, curves)}
    if any("confusion" in one for seeds in found.values() for one in seeds):
        drawn["confusion"] = draw_confusion(found)
    for name, figure in drawn.items():
        save(figure, out / name)
    parts = [f"# {title}", table(found), *(f"![{name}]({name}.png)" for name in drawn)]
    if any("style" in one for seeds in found.values() for one in seeds):
        parts.append(style_table(found))
    (out / "report.md").write_text("\n\n".join(parts) + "\n")


def save(figure: Figure, stem: Path) -> None:
    figure.tight_layout()
    for suffix in ("png", "svg"):
        figure.savefig(stem.with_name(f"{stem.name}.{suffix}"), dpi=110)


def summary(found: Found) -> dict[str, Any]:
    """The numbers of the table, one value per seed."""
    return {
        method: {
            "mean": [one["accuracy"]["mean"] for one in seeds],
            "worst_user": [one["accuracy"]["worst"] for one in seeds],
            "generic": [one["generic_accuracy"]["mean"] for one in seeds],
            "seen": [one["seen"] and one["seen"]["mean"] for one in seeds],
            "unseen": [one["unseen"] and one["unseen"]["mean"] for one in seeds],
            "ece": [one["calibration"]["ece"] for one in seeds],
            "nll": [one["nll"] for one in seeds],
            "test_pairs": seeds[0]["n_pairs"],
            "users": seeds[0]["n_users"],
        }
        for method, seeds in found.items()
    }


def table(found: Found) -> str:
    """Accuracy over users, of the worst user, with generic tokens; calibration error; the personalization tax."""
    lines = [
        "| | mean over users | worst user | generic tokens | unseen users | calibration error | tax, nats per token |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method, numbers in summary(found).items():
        unseen = [value for value in numbers["unseen"] if value is not None]
        tax = [nll["own"] - nll["base"] for nll in numbers["nll"]]
        cells = [
            percent(numbers["mean"]),
            percent(numbers["worst_user"]),
            percent(numbers["generic"]),
            percent(unseen) if unseen else "none",
            f"{mean(numbers['ece']):.3f}",
            f"{mean(tax):+.2f}",
        ]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    n_seeds = max(map(len, found.values()))
    note = f"{n_seeds} seed" + ("s, mean ± standard deviation." if n_seeds > 1 else ": no spread.")
    return "\n".join(lines) + f"\n\n{note} Tax: loss of the chosen held-out replies minus the base model's."


def style_table(found: Found) -> str:
    """Length, habits and language of each user's replies, over all seeds."""
    names = ["", "user", "median words", "lists", "ends in a question", "exclaims"]
    names += ["repeated 4-grams", "loop", "base loss per token"]
    lines = [f"| {' | '.join(names)} |", "| --- " * len(names) + "|"]
    for method, seeds in found.items():
        for user in sorted(set().union(*(one.get("style", {}) for one in seeds))):
            styles = [one["style"][user] for one in seeds if user in one.get("style", {})]
            words = f"{mean(s['median_words'] for s in styles):.0f}"
            habits = [f"{mean(s[habit] for s in styles):.0%}" for habit in ("list", "question", "exclamation")]
            spoken = [one["language"][user] for one in seeds if user in one.get("style", {})]
            language = [f"{mean(s[share] for s in spoken):.0%}" for share in ("repeated_4grams", "looping")]
            nll = f"{mean(s['base_nll'] for s in spoken):.2f}"
            cells = [method, "generic" if user == GENERIC else user, words, *habits, *language, nll]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def percent(values: Sequence[float]) -> str:
    """
    >>> percent([0.9, 0.92])
    '91.0 ± 1.4 %'
    """
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread} %"


def draw_users(found: Found) -> Figure:
    """Each user's accuracy: bars with the range over seeds, or, for many users, all of them in order."""
    figure = Figure(figsize=(9, 3.6))
    axes = figure.add_subplot()
    users = sorted(next(iter(found.values()))[0]["users"])
    width = 0.85 / len(found)
    for place, (method, seeds) in enumerate(found.items()):
        values = np.array([[one["users"][user]["accuracy"] for user in users] for one in seeds])
        middle = values.mean(0)
        if len(users) > MAX_NAMED_USERS:
            axes.plot(np.sort(middle), label=method)
        else:
            reach = (middle - values.min(0), values.max(0) - middle)
            at = np.arange(len(users)) + width * (place - (len(found) - 1) / 2)
            axes.bar(at, middle, width, yerr=reach, label=method, error_kw={"lw": 1})
    if len(users) <= MAX_NAMED_USERS:
        axes.set_xticks(range(len(users)), users, rotation=30, ha="right")
    else:
        axes.set_xlabel("users, worst first")
    axes.set(ylabel="held-out preference accuracy", ylim=(0, 1.02))
    axes.axhline(0.5, color="grey", lw=0.8)
    axes.legend(loc="lower right", fontsize=8)
    return figure


def draw_curves(found: Found, curves: Curves) -> Figure:
    """Training accuracy and loss, smoothed, and how far P(vote) can be believed."""
    figure = Figure(figsize=(12, 3.6))
    left, middle, right = figure.subplots(1, 3)
    for place, (method, seeds) in enumerate(found.items()):
        color = f"C{place}"
        for number, records in enumerate(curves[method]):
            for axes, name in ((left, "accuracy"), (middle, "loss")):
                values = np.convolve([r[name] for r in records], np.ones(SMOOTHED_STEPS) / SMOOTHED_STEPS, "valid")
                axes.plot(values, color=color, alpha=0.7, lw=1, label=None if number else method)
        for number, one in enumerate(seeds):
            bins = one["calibration"]["bins"]
            at, right_ = [b["confidence"] for b in bins], [b["right"] for b in bins]
            right.plot(at, right_, "o-", ms=3, color=color, alpha=0.7, label=None if number else method)
    left.set(xlabel="step", ylabel=f"training accuracy, mean of {SMOOTHED_STEPS} steps")
    middle.set(xlabel="step", ylabel=f"training loss, mean of {SMOOTHED_STEPS} steps")
    right.axline((0.5, 0.5), slope=1, color="grey", lw=0.8)
    right.set(xlabel="confidence", ylabel="share that is right", xlim=(0.5, 1), ylim=(0, 1.02))
    left.legend(fontsize=8)
    return figure


def draw_confusion(found: Found) -> Figure:
    """Accuracy of each user's tokens on each user's pairs, mean over seeds."""
    shown = {method: seeds for method, seeds in found.items() if "confusion" in seeds[0]}
    figure = Figure(figsize=(4.6 * len(shown), 4.2))
    for place, (method, seeds) in enumerate(shown.items(), start=1):
        users = seeds[0]["confusion"]["users"]
        values = np.mean([np.array(one["confusion"]["accuracy"], float) for one in seeds], axis=0)
        axes = figure.add_subplot(1, len(shown), place)
        axes.imshow(values, vmin=0, vmax=1, cmap="RdYlGn")
        for (row, column), value in np.ndenumerate(values):
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7)
        axes.set_xticks(range(len(users)), users, rotation=60, ha="right", fontsize=7)
        axes.set_yticks(range(len(users)), users, fontsize=7)
        axes.set(xlabel="whose pairs", ylabel="whose tokens", title=method)
    return figure
