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
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from idiolect.base_model import identify
from idiolect.prompt.template import chat_layout
from idiolect_training.config import RunConfig
from idiolect_training.demo_model import cache_dir, resolve
from idiolect_training.errors import BaseModelUnsupported
from idiolect_training.fit.adapter import check_lora
from idiolect_training.fit.base import load, logits_at, masks, read_config
from idiolect_training.fit.batch import Batch, Pair, collate
from idiolect_training.fit.reference_cache import ReferenceCache
from idiolect_training.progress import progress
from idiolect_training.users.user_models import ClusterUsers, build_user_table


class Policy:
    """Everything with weights in a run, on this process's device."""

    def __init__(self, run: RunConfig, n_users: int, rows_folder: Path | None = None) -> None:
        """`rows_folder` is where the users' rows live when the run wants them in a file.

        Raises BaseModelUnsupported, and BadRunConfig for a LoRA that does not fit, before any weight is read.
        """
        self.device: torch.device = PartialState().device
        path = resolve(run.model)
        check_lora(run.lora, read_config(path))
        auto = "bf16" if self.device.type == "cuda" else "fp32"
        self.precision = auto if run.precision == "auto" else run.precision
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path)
        # Before the weights: not every template has a place.
        self.layout = chat_layout(self.tokenizer, run.placement, run.max_reply_tokens, run.special_texts)
        base = load(path, torch.bfloat16 if self.precision == "bf16" else torch.float32)
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
        embedding = base.get_input_embeddings()
        with torch.no_grad():
            # As the decoder takes them: Gemma scales its embeddings.
            vocabulary = embedding(torch.arange(embedding.num_embeddings))
        self.users, self.rows = build_user_table(run.user_model, n_users, vocabulary, run.seed, rows_folder)
        self.n_user_tokens = run.user_model.n_user_tokens
        self.pad_id = self.tokenizer.pad_token_id or 0
        self.model.to(self.device)
        self.users.to(self.device)
        base_model = identify(path, cache_dir=cache_dir())
        self._cache = ReferenceCache(cache_dir() / "reference.sqlite", base_model.fingerprint, self.precision)

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
        embedded = self.model.get_input_embeddings()(words[known].to(self.device))
        self.users.clusters[known] = embedded.to(self.users.clusters)

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
        base = self.model.get_base_model()
        inputs = {"inputs_embeds": embeds, "attention_mask": masks(base, batch), "position_ids": batch.positions}
        with self.model.disable_adapter() if user_tokens is None else nullcontext():
            logits, _ = logits_at(base, batch.reply // 2, batch.source, **inputs)
        return logits.gather(-1, batch.target[:, None])[:, 0] - logits.logsumexp(-1)

    @torch.no_grad()
    def prove(self, pairs: Sequence[Pair]) -> None:
        """Compare the reference, on the shortest and the longest pair, with the model's own logits of each sequence.

        Raises BaseModelUnsupported where they differ: what is trained would not be what the model is.
        """
        base = self.model.eval().get_base_model()
        probe = [min(pairs, key=lambda pair: pair.n_tokens), max(pairs, key=lambda pair: pair.n_tokens)]
        ours = self.token_logps(collate(probe, 0, self.pad_id), None)
        own = []
        for prompt, reply in (
            (pair.prompt_ids, reply) for pair in probe for reply in (pair.chosen_ids, pair.rejected_ids)
        ):
            ids = torch.tensor([[*prompt, *reply]], device=self.device)
            with self.model.disable_adapter():
                logps = self.model(ids).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
            own.append(logps.gather(-1, ids[0, len(prompt) :, None])[:, 0])
        difference = (ours - torch.cat(own)).abs()
        # In bf16 single tokens differ by what rounding does to a logit; a wrong formula moves them all.
        found, allowed = (difference.mean(), 0.1) if self.precision == "bf16" else (difference.max(), 1e-3)
        if not found <= allowed:  # NaN is not
            raise BaseModelUnsupported(
                f"{base.config.architectures[0]}: the trainer's log-probabilities differ from the model's own "
                f"by {found:.2g} nats a token, more than {allowed:g}",
                hint="another base model; what would be trained is not what would be served",
            )

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
        for start in progress(range(0, len(groups), batch_pairs), desc):
            chunk = groups[start : start + batch_pairs]
            firsts = [places[0] for places in chunk]
            user_tokens = None if rows is None else self.user_tokens([rows[place] for place in firsts])
            scored = self.pair_logps([pairs[place] for place in firsts], user_tokens).cpu()
            for places, scores in zip(chunk, scored, strict=True):
                for place in places:
                    swapped = pairs[place].chosen_ids != pairs[places[0]].chosen_ids
                    logps[place] = scores.flip(0) if swapped else scores
        return logps
