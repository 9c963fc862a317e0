"""The demo model's own greedy replies to 240 prompts: what benchmarks with rules about sentences are made of.

`python -m bench.learning.greedy_replies` writes greedy_replies.jsonl anew; it is kept, so that no benchmark needs a
model for its data.
"""

import json
import re
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from idiolect_training.demo_model import demo_model

PROMPTS = Path(__file__).with_name("greedy_prompts.txt")
REPLIES = Path(__file__).with_name("greedy_replies.jsonl")
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


def read_replies() -> list[tuple[str, str]]:
    """(prompt, reply)."""
    rows = [json.loads(line) for line in REPLIES.read_text().splitlines()]
    return [(row["prompt"], row["reply"]) for row in rows]


def sentences(reply: str) -> list[str]:
    """The sentences of a reply; a full stop after a digit ("1.") ends none."""
    return [part.strip() for part in re.split(r"(?<=[^\d\s][.!?])\s+|\n+", reply) if part.strip()]


def main() -> None:
    prompts = PROMPTS.read_text().splitlines()
    rows = [{"prompt": p, "reply": r} for p, r in zip(prompts, generate_replies(prompts), strict=True)]
    REPLIES.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


if __name__ == "__main__":
    main()
