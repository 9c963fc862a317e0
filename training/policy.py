"""The policy: frozen base model + one LoRA + user tokens -> log-probabilities of replies.

The reference is the same base model with both off: no adapter, no user tokens.
"""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from peft import LoraConfig as PeftLora
from peft import PeftModel, get_peft_model
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from training.batch import Batch, Pair, collate
from training.config import RunConfig
from training.demo_model import resolve
from training.user_table import UserTable, build_user_table

Tensor = torch.Tensor


class Policy:
    """Everything with weights in a run."""

    def __init__(self, run: RunConfig, n_users: int) -> None:
        path = resolve(run.model)
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path)
        base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        torch.manual_seed(run.seed)  # PEFT draws the A matrices from the global generator
        lora = PeftLora(
            r=run.lora.rank,
            lora_alpha=run.lora.alpha,
            target_modules=list(run.lora.target_modules),
            task_type="CAUSAL_LM",
        )
        self.model: PeftModel = get_peft_model(base, lora)
        vocabulary = base.get_input_embeddings().weight
        self.users: UserTable = build_user_table(run.user_model, n_users, vocabulary, run.seed)
        self.n_user_tokens = run.user_model.n_user_tokens
        self.pad_id = self.tokenizer.pad_token_id or 0
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device)
        self.users.to(self.device)

    def lora_parameters(self) -> dict[str, torch.nn.Parameter]:
        """Trainable LoRA matrices by their PEFT name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def user_parameters(self) -> dict[str, torch.nn.Parameter]:
        return dict(self.users.named_parameters())

    def token_logps(self, batch: Batch, user_tokens: Tensor | None) -> Tensor:
        """Log-probability of every reply token, [2B, L], zero elsewhere.

        `user_tokens` [B, T_u, H] go to the placeholders of `batch`; None is the reference model, whose batch has no
        placeholders.
        """
        ids = batch.ids.to(self.device)
        embeds = self.model.get_input_embeddings()(ids)
        if user_tokens is not None:
            flat = user_tokens.repeat(2, 1, 1).reshape(-1, user_tokens.shape[-1])
            embeds = embeds.masked_scatter(batch.user_mask.to(self.device)[..., None], flat.to(embeds.dtype))
        decoder = self.model.get_base_model()
        with self.model.disable_adapter() if user_tokens is None else nullcontext():
            hidden = decoder.model(
                inputs_embeds=embeds, attention_mask=batch.attention_mask.to(self.device), use_cache=False
            ).last_hidden_state
        # Logits only where a reply token is predicted: the vocabulary is the widest matrix of a small model.
        reply = batch.reply_mask[:, 1:].to(self.device)
        logits = decoder.lm_head(hidden[:, :-1][reply]).float()
        picked = logits.gather(-1, ids[:, 1:][reply][:, None])[:, 0] - logits.logsumexp(-1)
        logps = torch.zeros(ids.shape, dtype=torch.float32, device=self.device)
        logps[:, 1:][reply] = picked
        return logps

    def pair_logps(self, pairs: Sequence[Pair], rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Summed reply log-probabilities (chosen [B], rejected [B]) as seen by `rows` [B]; None for the reference."""
        batch = collate(pairs, 0 if rows is None else self.n_user_tokens, self.pad_id)
        user_tokens = None if rows is None else self.users(rows.to(self.device))
        chosen, rejected = self.token_logps(batch, user_tokens).sum(-1).chunk(2)
        return chosen, rejected

    @torch.no_grad()
    def score(self, pairs: Sequence[Pair], rows: Sequence[int] | None, batch_pairs: int, desc: str) -> Tensor:
        """Log-probabilities (chosen, rejected) as seen by each pair's row, [n, 2]; rows None is the reference.

        Users judge the same replies, so each distinct (row, prompt, pair of replies) is computed once, whichever of
        the two replies was chosen.
        """
        distinct: dict[tuple[object, ...], list[int]] = {}
        for place, pair in enumerate(pairs):
            replies = frozenset((pair.chosen_ids, pair.rejected_ids))
            distinct.setdefault((rows and rows[place], pair.prompt_ids, replies), []).append(place)
        groups = sorted(distinct.values(), key=lambda places: pairs[places[0]].n_tokens)
        logps = torch.zeros(len(pairs), 2)
        for start in tqdm(range(0, len(groups), batch_pairs), desc=desc):
            chunk = groups[start : start + batch_pairs]
            firsts = [places[0] for places in chunk]
            chunk_rows = None if rows is None else torch.tensor([rows[place] for place in firsts])
            scored = torch.stack(self.pair_logps([pairs[place] for place in firsts], chunk_rows), dim=1).cpu()
            for places, scores in zip(chunk, scored, strict=True):
                for place in places:
                    swapped = pairs[place].chosen_ids != pairs[places[0]].chosen_ids
                    logps[place] = scores.flip(0) if swapped else scores
        return logps
