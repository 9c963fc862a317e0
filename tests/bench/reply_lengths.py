"""make reply-lengths: how long are the replies of concise and of detailed users, on prompts that training never saw?

Asks a server on real vLLM through /generate, every held-out prompt for every user of the demo bundle, greedily.
Writes docs/results/reply_lengths.json and reply_lengths.png.
"""

import json
import re
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
from idiolect_client import Client

from tests.live import DEMO_BUNDLE, ROOT, running_server
from tests.record import provenance, record

OUT = ROOT / "docs" / "results"
TASTES = ("concise", "detailed", "lists", "stranger")
MAX_TOKENS = 96


def held_out_prompts() -> list[str]:
    folder = DEMO_BUNDLE.parent
    trained = {json.loads(line)["prompt"] for line in (folder / "train.jsonl").read_text().splitlines()}
    tested = {json.loads(line)["prompt"] for line in (folder / "test.jsonl").read_text().splitlines()}
    assert not trained & tested
    return sorted(tested)


def ask_all(prompts: list[str]) -> dict[str, list[str]]:
    """Replies by taste."""
    with (
        tempfile.TemporaryDirectory() as folder,
        (Path(folder) / "server.log").open("wb") as log,
        running_server(log, data_dir=f"{folder}/data") as (url, _),
        Client(url, timeout_s=600) as client,
    ):

        def ask(asked: tuple[str, str]) -> tuple[str, str]:
            taste, prompt = asked
            # Both users of a taste take turns.
            user = "stranger" if taste == "stranger" else f"{taste}-{prompts.index(prompt) % 2 + 1}"
            return taste, client.generate(prompt, user_id=user, max_tokens=MAX_TOKENS).text

        replies = defaultdict(list)
        with ThreadPoolExecutor(32) as pool:
            for taste, text in pool.map(ask, [(taste, prompt) for prompt in prompts for taste in TASTES]):
                replies[taste].append(text)
        return dict(replies)


def main() -> None:
    prompts = held_out_prompts()
    replies = ask_all(prompts)
    words = {taste: [len(text.split()) for text in texts] for taste, texts in replies.items()}
    listed = {
        taste: sum(bool(re.match(r"[-*] ", text)) for text in texts) / len(texts) for taste, texts in replies.items()
    }
    medians = {taste: median(counts) for taste, counts in words.items()}
    result = {
        "n_prompts": len(prompts),
        "max_tokens": MAX_TOKENS,
        "median_words": medians,
        "detailed_over_concise": round(medians["detailed"] / medians["concise"], 2),
        "share_that_open_with_a_dash": {taste: round(share, 3) for taste, share in listed.items()},
        **provenance("make reply-lengths"),
        "examples": {taste: texts[:3] for taste, texts in replies.items()},
    }
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "reply_lengths.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    draw(words)
    accuracy = json.loads((OUT / "accuracy.json").read_text())
    value = {
        "detailed_over_concise_median_words": result["detailed_over_concise"],
        "prompts": len(prompts),
        "held_out_accuracy": accuracy["prlhf"]["accuracy"]["mean"],
        "pooled_dpo_accuracy": accuracy["pooled"]["accuracy"]["mean"],
    }
    record(
        ROOT / "docs" / "evidence.json",
        "A2",
        value,
        "ratio >= 2 on >= 40 prompts; accuracy >= 0.85",
        "make reply-lengths",
    )
    sys.stdout.write(json.dumps({key: kept for key, kept in result.items() if key != "examples"}, indent=2) + "\n")


def draw(words: dict[str, list[int]]) -> None:
    figure, axes = plt.subplots(figsize=(7, 3.5))
    axes.boxplot([words[taste] for taste in TASTES], tick_labels=TASTES, whis=(5, 95), showfliers=False)
    axes.set_ylabel("words a reply")
    axes.set_title(f"Replies to {len(words['concise'])} held-out prompts, through /generate")
    figure.tight_layout()
    figure.savefig(OUT / "reply_lengths.png", dpi=110)


if __name__ == "__main__":
    main()
