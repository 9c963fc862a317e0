"""The policy: frozen base model + one LoRA + user tokens -> log-probabilities of replies.

The reference is the same base model with both off: no adapter, no user tokens.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import PartialState
from peft import LoraConfig as PeftLora
from peft import PeftModel, get_peft_model
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from idiolect.base_model import identify
from idiolect.chat_layout import chat_layout
from idiolect_training.config import RunConfig
from idiolect_training.demo_model import cache_dir, resolve
from idiolect_training.fit.batch import Batch, Pair, collate
from idiolect_training.fit.reference_cache import ReferenceCache
from idiolect_training.users.user_models import ClusterUsers, build_user_table


class Policy:
    """Everything with weights in a run, on this process's device."""

    def __init__(self, run: RunConfig, n_users: int, rows_folder: Path | None = None) -> None:
        """`rows_folder` is where the users' rows live when the run wants them in a file."""
        self.device: torch.device = PartialState().device
        path = resolve(run.model)
        precision = {"auto": "bf16" if self.device.type == "cuda" else "fp32"}.get(run.precision, run.precision)
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path)
        self.layout = chat_layout(self.tokenizer, run.placement)  # before the weights: not every template has a place
        base = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.bfloat16 if precision == "bf16" else torch.float32, attn_implementation="sdpa"
        )
        if run.gradient_checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(run.seed)  # PEFT draws the A matrices from the global generator
        lora = PeftLora(
            r=run.lora.rank,
            lora_alpha=run.lora.alpha,
            target_modules=list(run.lora.target_modules),
            task_type="CAUSAL_LM",
        )
        self.model: PeftModel = get_peft_model(base, lora)  # the matrices of the LoRA stay in fp32
        vocabulary = base.get_input_embeddings().weight
        self.users, self.rows = build_user_table(run.user_model, n_users, vocabulary, run.seed, rows_folder)
        self.n_user_tokens = run.user_model.n_user_tokens
        self.pad_id = self.tokenizer.pad_token_id or 0
        self.model.to(self.device)
        self.users.to(self.device)
        self._cache = ReferenceCache(
            cache_dir() / "reference.sqlite", identify(path, cache_dir=cache_dir()).fingerprint, precision
        )

    def lora_parameters(self) -> dict[str, torch.nn.Parameter]:
        """Trainable LoRA matrices by their PEFT name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def user_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The embeddings that all users share."""
        return dict(self.users.named_parameters())

    def user_tokens(self, rows: Sequence[int]) -> Tensor:
        """Soft tokens [B, T_u, H] of the rows, without gradients into the rows."""
        return self.users(self.rows.gather(torch.tensor(rows)).to(self.device))

    @torch.no_grad()
    def place_clusters(self, words: Tensor) -> None:
        """Have the clusters' soft tokens start at these rows of the vocabulary, [K, T_u]; -1 stays as it is."""
        assert isinstance(self.users, ClusterUsers)
        known = (words >= 0).all(1)
        embedding = self.model.get_input_embeddings().weight
        self.users.clusters[known] = embedding[words[known].to(embedding.device)].to(self.users.clusters)

    def token_logps(self, batch: Batch, user_tokens: Tensor | None) -> Tensor:
        """Log-probability of every reply token of the batch, [N].

        `user_tokens` [B, T_u, H] go to the placeholders of `batch`; None is the reference model, whose batch has no
        placeholders.
        """
        batch = batch.to(self.device)
        embeds = self.model.get_input_embeddings()(batch.ids)
        if user_tokens is not None:
            flat = user_tokens.reshape(-1, user_tokens.shape[-1]).to(embeds.dtype)
            embeds = embeds.masked_scatter(batch.user_mask[..., None], flat)
        decoder = self.model.get_base_model()
        with self.model.disable_adapter() if user_tokens is None else nullcontext():
            hidden = decoder.model(
                inputs_embeds=embeds, attention_mask=batch.visible(), position_ids=batch.positions, use_cache=False
            ).last_hidden_state
        # Logits only where a reply token is predicted: the vocabulary is the widest matrix of a small model.
        logits = decoder.lm_head(hidden[batch.reply // 2, batch.source]).float()
        return logits.gather(-1, batch.target[:, None])[:, 0] - logits.logsumexp(-1)

    def pair_logps(self, pairs: Sequence[Pair], user_tokens: Tensor | None) -> Tensor:
        """Summed reply log-probabilities (chosen, rejected), [B, 2]; `user_tokens` as in `token_logps`."""
        batch = collate(pairs, 0 if user_tokens is None else self.n_user_tokens, self.pad_id)
        logps = self.token_logps(batch, user_tokens)
        return logps.new_zeros(2 * len(pairs)).index_add(0, batch.reply.to(self.device), logps).reshape(-1, 2)

    def reference(self, pairs: Sequence[Pair], batch_pairs: int) -> Tensor:
        """Reference log-probabilities [n, 2], from the cache on disk where it has them."""
        logps = self._cache.read(pairs)
        missing = torch.isnan(logps).any(1).nonzero()[:, 0].tolist()
        chunk = 32 * batch_pairs  # written often: an interrupted pass resumes
        for start in range(0, len(missing), chunk):
            places = missing[start : start + chunk]
            wanted = [pairs[place] for place in places]
            logps[places] = self.score(wanted, None, batch_pairs, f"reference {start}/{len(missing)}")
            self._cache.write(wanted, logps[places])
        return logps

    @torch.no_grad()
    def score_tokens(self, pairs: Sequence[Pair], user_tokens: Tensor, batch_pairs: int) -> Tensor:
        """Log-probabilities (chosen, rejected) of all pairs with the same soft tokens [T_u, H], [n, 2]."""
        order = sorted(range(len(pairs)), key=lambda place: pairs[place].n_tokens)
        logps = torch.zeros(len(pairs), 2)
        for start in range(0, len(order), batch_pairs):
            places = order[start : start + batch_pairs]
            tokens = user_tokens.to(self.device).expand(len(places), *user_tokens.shape)
            logps[places] = self.pair_logps([pairs[place] for place in places], tokens).cpu()
        return logps

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
        for start in tqdm(range(0, len(groups), batch_pairs), desc=desc, disable=None):
            chunk = groups[start : start + batch_pairs]
            firsts = [places[0] for places in chunk]
            user_tokens = None if rows is None else self.user_tokens([rows[place] for place in firsts])
            scored = self.pair_logps([pairs[place] for place in firsts], user_tokens).cpu()
            for places, scores in zip(chunk, scored, strict=True):
                for place in places:
                    swapped = pairs[place].chosen_ids != pairs[places[0]].chosen_ids
                    logps[place] = scores.flip(0) if swapped else scores
        return logps
