"""What it gains to know who votes, over the one head for everybody: in numbers, as a table and drawn."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from bench.people.real_votes import N_OWN, Hits
from tests.live import ROOT

OUT = ROOT / "docs" / "results"


def summarize(seeds: Sequence[dict[str, Hits]]) -> dict[str, dict[str, Any]]:
    """Accuracy of each model, mean over users (macro) and over votes (micro), and its gain over `global` in points."""
    return {name: _accuracy([seed[name] for seed in seeds]) | gain(seeds, name) for name in seeds[0]}


def macro_micro(hits: Hits) -> dict[str, float]:
    tested = hits[hits[:, 1] > 0]
    macro, micro = (tested[:, 0] / tested[:, 1]).mean(), tested[:, 0].sum() / tested[:, 1].sum()
    return {"macro": round(float(macro), 4), "micro": round(float(micro), 4)}


def _accuracy(seeds: Sequence[Hits]) -> dict[str, Any]:
    """Mean and standard error over seeds."""
    each = [macro_micro(hits) for hits in seeds]
    return {
        name: {"mean": round(mean(values), 4), "se": round(stdev(values) / len(values) ** 0.5, 4)}
        for name in ("macro", "micro")
        for values in ([accuracy[name] for accuracy in each],)
    }


def gain(seeds: Sequence[dict[str, Hits]], name: str) -> dict[str, Any]:
    """Points over `global`, votes of all seeds together, with a 95 % bootstrap interval over users."""
    return gain_over(*(np.sum([seed[model] for seed in seeds], axis=0) for model in (name, "global")))


def gain_over(mine: Hits, other: Hits) -> dict[str, Any]:
    """Points of `mine` over `other`, on the same votes."""
    mine, other = mine[mine[:, 1] > 0], other[other[:, 1] > 0]
    n, ahead = mine[:, 1], mine[:, 0] - other[:, 0]
    draw = np.random.default_rng(0).integers(0, len(n), (5000, len(n)))
    macro, micro = (ahead / n)[draw].mean(1), ahead[draw].sum(1) / n[draw].sum(1)
    found = {"gain_macro": (float((ahead / n).mean()), macro), "gain_micro": (float(ahead.sum() / n.sum()), micro)}
    return {
        key: {
            "points": round(100 * value, 2),
            "interval": [round(100 * float(q), 2) for q in np.quantile(drawn, (0.025, 0.975))],
        }
        for key, (value, drawn) in found.items()
    }


def table(found: Mapping[str, dict[str, Any]]) -> str:
    """Accuracy in per cent over users (macro) and over votes (micro), and gains over `global` with their intervals."""
    lines = []
    for name, data in found.items():
        lines.append(f"{name}: {data['votes']} votes, {data['evaluated_users']} users evaluated\n")
        for protocol in ("by_pair", "by_user"):
            for features, measured in data[protocol].items():
                for model, row in measured["models"].items():
                    cells = [
                        f"{100 * row[kind]['mean']:5.1f} ± {100 * row[kind]['se']:.1f}" for kind in ("macro", "micro")
                    ]
                    for kind in ("gain_macro", "gain_micro"):
                        low, high = row[kind]["interval"]
                        cells.append(f"{row[kind]['points']:+5.1f} [{low:+.1f}, {high:+.1f}]")
                    lines.append(f"  {protocol} {features:8}{model:15} " + "   ".join(cells) + "\n")
        majority = data["majority_of_others"]
        lines.append(f"  majority of others {100 * majority['macro']:.1f} {100 * majority['micro']:.1f}\n")
    return "".join(lines)


def draw(found: Mapping[str, dict[str, Any]]) -> None:
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.2))
    users = found["llmfao"]["users"]
    sizes = [user["votes"] for user in users]
    left.scatter([user["global"] for user in users], [user["personal"] for user in users], s=sizes, alpha=0.5)
    left.axline((0.5, 0.5), slope=1, color="grey", lw=1)
    left.set(xlabel="accuracy of the global head", ylabel="accuracy of the personal head")
    left.set_title("LLMFAO users by pair (area: votes)")
    models = ("individual", "low_rank", "cluster")
    for shift, (name, data) in enumerate(found.items()):
        for measure_, marker in (("gain_macro", "o"), ("gain_micro", "s")):
            rows = [data["by_pair"]["all"]["models"][model][measure_] for model in models]
            points = np.array([row["points"] for row in rows])
            reach = np.abs(np.array([row["interval"] for row in rows]).T - points)
            at = np.arange(len(models)) + 0.4 * shift + (0.15 if marker == "s" else 0) - 0.27
            label = f"{name}, over {'votes' if marker == 's' else 'users'}"
            middle.errorbar(at, points, reach, fmt=marker, color=f"C{shift}", label=label, capsize=2)
    middle.set_xticks(range(len(models)), models)
    middle.set(ylabel="points over global", title="Known users, unseen pairs (95 % over users)")
    for shift, (name, data) in enumerate(found.items()):
        rows = [data["by_user"]["all"]["models"][f"personal@{n_own}"]["gain_macro"] for n_own in N_OWN]
        bounds = np.array([row["interval"] for row in rows]).T
        right.plot(N_OWN, [row["points"] for row in rows], f"C{shift}o-", label=f"{name}, over users")
        right.fill_between(N_OWN, *bounds, color=f"C{shift}", alpha=0.15)
    right.set(xlabel="own votes of a new user", ylabel="points over global", title="New users (95 % over users)")
    for axes in (middle, right):
        axes.axhline(0, color="grey", lw=1)
        axes.legend(fontsize=8)
    figure.tight_layout()
    for suffix in ("png", "svg"):
        figure.savefig(OUT / f"real_people.{suffix}", dpi=110)


def headline(data: dict[str, Any]) -> dict[str, Any]:
    """By pair, and for new users at each number of own votes, in points over `global`."""
    pair, user = (data[protocol]["all"]["models"] for protocol in ("by_pair", "by_user"))
    return {
        "by_pair": {
            f"{model}_{kind}": row[kind]["mean"]
            for model in ("global", "personal")
            for kind in ("macro", "micro")
            for row in (pair[model],)
        }
        | {kind: pair["personal"][kind] for kind in ("gain_macro", "gain_micro")},
        "by_user_gain_macro": {n_own: user[f"personal@{n_own}"]["gain_macro"]["points"] for n_own in N_OWN},
        "evaluated_users": data["evaluated_users"],
        "seeds": data["seeds"],
    }
