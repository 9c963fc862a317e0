"""The demo's comparisons: replies of the demo model, labelled by stated rules. Its users are rules, not people.

`python -m training.demo_pairs training/runs/demo` reads prompts.txt there and writes replies.jsonl (one greedy
reply a prompt, kept so that labels can be remade without a model), train.jsonl and test.jsonl.

The tastes:
    concise    prefers the first sentence alone to the whole reply
    detailed   prefers the whole reply to its first sentence
    lists      prefers the sentences as a list of dashes to the same sentences as a paragraph
    prose      prefers the paragraph to the list
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.demo_model import demo_model

TASTES = ("concise", "detailed", "lists", "prose")
USERS_PER_TASTE = 2
TEST_EVERY = 5
"""Every fifth prompt is held out: the split is by prompt, so no test prompt or reply was seen in training."""
MAX_NEW_TOKENS = 80
BATCH_PROMPTS = 12


def generate_replies(prompts: list[str]) -> list[str]:
    """One greedy reply to each prompt, cut at MAX_NEW_TOKENS; five-token loops of the small model are forbidden."""
    path = demo_model()
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    replies = []
    for start in tqdm(range(0, len(prompts), BATCH_PROMPTS), desc="replies"):
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
            for prompt in prompts[start : start + BATCH_PROMPTS]
        ]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        outputs = model.generate(
            **inputs,
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            no_repeat_ngram_size=5,
            pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
        )
        new = outputs[:, inputs["input_ids"].shape[1] :]
        replies += [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
    return replies


def sentences(reply: str) -> list[str]:
    """The sentences of a reply; a full stop after a digit ("1.") ends none."""
    return [part.strip() for part in re.split(r"(?<=[^\d\s][.!?])\s+|\n+", reply) if part.strip()]


def compare(number: int, prompt: str, reply: str, everyone: bool) -> Iterator[dict[str, str]]:
    """What the users say of one reply. In training each prompt is judged by one user of two opposed tastes."""
    parts = sentences(reply)
    if len(parts) < 2 or any(part.startswith(("- ", "* ", "1.")) for part in parts):
        return
    first, whole, listed = parts[0], " ".join(parts), "\n".join(f"- {part}" for part in parts)
    tastes = {
        "concise": (first, whole),
        "detailed": (whole, first),
        "lists": (listed, whole),
        "prose": (whole, listed),
    }
    for taste, (chosen, rejected) in tastes.items():
        for user in range(USERS_PER_TASTE):
            asked = (number % 2 == 0) == (taste in ("concise", "detailed")) and number // 2 % USERS_PER_TASTE == user
            if everyone or asked:
                yield {
                    "user_id": f"{taste}-{user + 1}",
                    "prompt": prompt,
                    "chosen": chosen,
                    "rejected": rejected,
                }


def main(folder: Path) -> None:
    prompts = (folder / "prompts.txt").read_text().splitlines()
    cached = folder / "replies.jsonl"
    if not cached.is_file():
        replies = generate_replies(prompts)
        cached.write_text("".join(_line({"prompt": p, "reply": r}) for p, r in zip(prompts, replies, strict=True)))
    rows = [json.loads(line) for line in cached.read_text().splitlines()]
    train = list(enumerate(row for i, row in enumerate(rows) if i % TEST_EVERY))
    test = list(enumerate(row for i, row in enumerate(rows) if i % TEST_EVERY == 0))
    for name, part, everyone in (("train", train, False), ("test", test, True)):
        pairs = [pair for i, row in part for pair in compare(i, row["prompt"], row["reply"], everyone)]
        (folder / f"{name}.jsonl").write_text("".join(map(_line, pairs)))


def _line(record: dict[str, str]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
