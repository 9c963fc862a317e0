"""make penalty: which frequency penalty should the demo bundle state? One known user of each taste, greedy.

On prompts that no other measure uses, so that what is chosen here is not fitted on what it is tested on.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.demo.words import ask_all, less_likely, loops
from bench.results import provenance
from idiolect_client import Client
from idiolect_training.config import RunConfig
from idiolect_training.data.everyday import TASTES
from idiolect_training.evaluate.replies import GENERIC, Reply
from idiolect_training.evaluate.reply_style import style
from idiolect_training.fit.policy import Policy
from tests.live import DEMO_BUNDLE, ROOT, running_server

COMMAND = "make penalty"
OUT = ROOT / "docs" / "results" / "penalty.json"
PROMPTS = Path(__file__).parent / "penalty_prompts.txt"
PENALTIES = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6)
USERS = (GENERIC, *(f"{taste}-1" for taste in TASTES))


def replies_under(penalty: float, client: Client, prompts: list[str]) -> list[Reply]:
    asked = [(user, number) for user in USERS for number in range(len(prompts))]
    texts = ask_all(client, [(user or "nobody-knows-me", prompts[number], None) for user, number in asked], penalty)
    return [
        Reply(user, number, [{"role": "user", "content": prompts[number]}], text)
        for (user, number), text in zip(asked, texts, strict=True)
    ]


def summary(replies: list[Reply], policy: Policy) -> dict[str, Any]:
    """For each user, and the worst of each measure over users."""
    measured = loops(replies)
    over = less_likely(policy, replies, {reply.number: reply.text for reply in replies if reply.user_id == GENERIC})
    seen = style((reply.user_id, reply.text) for reply in replies)
    users = {
        user or "generic": {**seen[user], **measured[user], "nats_over_generic": round(over[user], 4)} for user in USERS
    }
    known = {user: each for user, each in users.items() if user != "generic"}
    return {
        "repeated_4grams": max(each["repeated_4grams"] for each in known.values()),
        "looping": max(each["looping"] for each in known.values()),
        "nats_over_generic": max(each["nats_over_generic"] for each in known.values()),
        "warm_exclaim": min(each["exclamation"] for user, each in known.items() if "warm" in user),
        "users": users,
    }


def main() -> None:
    prompts = PROMPTS.read_text().splitlines()
    with (
        tempfile.TemporaryDirectory() as folder,
        (Path(folder) / "server.log").open("wb") as log,
        running_server(log, data_dir=f"{folder}/data") as (url, _),
        Client(url, timeout_s=3600) as client,
    ):
        replies = {penalty: replies_under(penalty, client, prompts) for penalty in PENALTIES}
    policy = Policy(RunConfig.read(DEMO_BUNDLE.parent / "run.yaml"), 0)
    rows = {str(penalty): summary(each, policy) for penalty, each in replies.items()}
    result = {"prompts": len(prompts), "penalties": rows, **provenance(COMMAND)}
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    for penalty, row in rows.items():
        sys.stdout.write(f"{penalty}: { {name: value for name, value in row.items() if name != 'users'} }\n")


if __name__ == "__main__":
    main()
