"""Chat templates in the styles of many model families, in our own words, with small tokenizers trained here."""
# ruff: noqa: E501

from dataclasses import dataclass
from typing import Literal

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "What is rain? Water falls from clouds. Name three rivers and 7 towns.",
    "user assistant system model USER ASSISTANT Instruction Response [INST] [/INST] <<SYS>> <</SYS>> Be brief.",
    "<|user|> <|assistant|> <|system|> ### Instruction: ### Response: How do I boil an egg?\n\n",
] * 20
Kind = Literal["bytes", "metaspace", "metaspace_first", "unigram"]


@dataclass(frozen=True)
class Style:
    """A template, what it writes (for the test to know by itself), and the tokenizer it comes with."""

    name: str
    template: str
    opening: str
    """What opens a user turn."""
    end: str
    """What ends a reply."""
    special: tuple[str, ...] = ()
    kind: Kind = "bytes"
    bos: str | None = None
    eos: str = "</s>"
    folds: bool = False
    trims: bool = False
    takes_system: bool = True

    def tokenizer(self) -> PreTrainedTokenizerFast:
        wrapped = PreTrainedTokenizerFast(
            tokenizer_object=_train(self.kind, (*self.special, self.eos, *([self.bos] if self.bos else []))),
            bos_token=self.bos,
            eos_token=self.eos,
            additional_special_tokens=list(self.special),
        )
        wrapped.chat_template = self.template
        return wrapped


def _train(kind: Kind, special: tuple[str, ...]) -> Tokenizer:
    options = {"vocab_size": 600, "special_tokens": ["<unk>", *special], "show_progress": False}
    if kind == "bytes":
        made = Tokenizer(models.BPE(unk_token=None))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(**options, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    elif kind == "unigram":
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        made.decoder = decoders.Metaspace(prepend_scheme="always")
        trainer = trainers.UnigramTrainer(**options, unk_token="<unk>")
    else:
        made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        if kind == "metaspace":  # as Llama 2's: a space is put before each piece of text
            made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        else:
            made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        pieces = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(**{**options, "vocab_size": 900, "special_tokens": ["<unk>", *special, *pieces]})
    made.train_from_iterator(CORPUS, trainer)
    return made


def _turns(user: str, assistant: str, system: str = "", end: str = "", before: str = "", prompt: str = "") -> str:
    """A template of one mark for each role: each message is its mark, its content, and the end."""
    roles = f"{{% if m.role == 'user' %}}{user}{{% elif m.role == 'assistant' %}}{assistant}{{% else %}}{system}{{% endif %}}"
    loop = f"{{% for m in messages %}}{roles}{{{{ m.content }}}}{end}{{% endfor %}}"
    return f"{before}{loop}{{% if add_generation_prompt %}}{prompt or assistant}{{% endif %}}"


CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
CHATML_PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
DEFAULT_SYSTEM = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are kind.<|im_end|>\n{% endif %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
ALTERNATE = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}"
)
SPLIT = (
    "{% if messages[0].role == 'system' %}{% set sys = messages[0].content %}{% set rest = messages[1:] %}"
    "{% else %}{% set sys = '' %}{% set rest = messages %}{% endif %}"
)
IM = ("<|im_start|>", "<|im_end|>")
HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
TURNS = ("<start_of_turn>", "<end_of_turn>")

STYLES = (
    Style("chatml", CHATML + CHATML_PROMPT, "<|im_start|>user", "<|im_end|>", IM, eos="<|im_end|>"),
    Style("default system", DEFAULT_SYSTEM + CHATML + CHATML_PROMPT, "<|im_start|>user", "<|im_end|>", IM, eos="<|im_end|>"),
    Style("turns begin as texts do", CHATML + CHATML_PROMPT, "<|im_start|>user", "<|im_end|>", ("<|im_end|>",), bos="<|im_start|>", eos="<|im_end|>"),
    Style("end is not eos", CHATML + CHATML_PROMPT, "<|im_start|>user", "<|im_end|>", IM, eos="<|endoftext|>"),
    Style(
        "wants a user",
        "{% if not messages | selectattr('role', 'equalto', 'user') | list %}{{ raise_exception('no user') }}{% endif %}"
        + CHATML
        + CHATML_PROMPT,
        "<|im_start|>user",
        "<|im_end|>",
        IM,
        eos="<|im_end|>",
    ),
    Style(
        "headers",
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}"
        "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        "<|start_header_id|>user<|end_header_id|>",
        "<|eot_id|>",
        HEADERS,
        bos="<|begin|>",
        eos="<|eot_id|>",
        trims=True,
    ),
    Style(
        "instructions, no system",
        NO_SYSTEM
        + ALTERNATE
        + "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
        "[INST]",
        "</s>",
        kind="metaspace",
        bos="<s>",
        takes_system=False,
    ),
    Style(
        "instructions, system in the last turn",
        SPLIT
        + "{{ bos_token }}{% for m in rest %}{% if m.role == 'user' %}[INST] {% if loop.last and sys %}{{ sys }}\n\n{% endif %}"
        "{{ m.content }}[/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
        "[INST]",
        "</s>",
        ("[INST]", "[/INST]"),
        kind="metaspace",
        bos="<s>",
        folds=True,
    ),
    Style(
        "instructions, system in the first turn",
        SPLIT
        + "{% for m in rest %}{% if m.role == 'user' %}{{ bos_token }}[INST] {% if loop.first and sys %}<<SYS>>\n{{ sys | trim }}\n"
        "<</SYS>>\n\n{% endif %}{{ m.content | trim }} [/INST]{% else %} {{ m.content | trim }} {{ eos_token }}{% endif %}"
        "{% endfor %}",
        "[INST]",
        "</s>",
        kind="metaspace",
        bos="<s>",
        folds=True,
        trims=True,
    ),
    Style(
        "instructions, system of its own",
        SPLIT
        + "{{ bos_token }}{% if sys %}[SYSTEM_PROMPT]{{ sys }}[/SYSTEM_PROMPT]{% endif %}{% for m in rest %}"
        "{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
        "[INST]",
        "</s>",
        ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        bos="<s>",
    ),
    Style(
        "turns, no system",
        NO_SYSTEM
        + "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        "<start_of_turn>user",
        "<end_of_turn>",
        TURNS,
        kind="metaspace_first",
        bos="<bos>",
        eos="<eos>",
        trims=True,
        takes_system=False,
    ),
    Style(
        "turns, system in the first",
        SPLIT
        + "{{ bos_token }}{% for m in rest %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{% if loop.first and sys %}{{ sys | trim }}\n\n{% endif %}{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        "<start_of_turn>user",
        "<end_of_turn>",
        TURNS,
        kind="metaspace_first",
        bos="<bos>",
        eos="<eos>",
        folds=True,
        trims=True,
    ),
    Style(
        "marks of plain text",
        _turns("<|user|>\n", "<|assistant|>\n", "<|system|>\n", "</s>\n"),
        "<|user|>",
        "</s>",
        kind="metaspace",
        bos="<s>",
    ),
    Style(
        "another end at the very end",
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}",
        "<|user|>",
        "<|end|>",
        ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"),
        eos="<|endoftext|>",
    ),
    Style(
        "marks alone",
        _turns("<|User|>", "<|Assistant|>", "", before="{{ bos_token }}").replace(
            "{{ m.content }}", "{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
        ),
        "<|User|>",
        "<|end_of_sentence|>",
        ("<|User|>", "<|Assistant|>"),
        bos="<|begin_of_sentence|>",
        eos="<|end_of_sentence|>",
    ),
    Style(
        "roles between marks",
        "{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}",
        "<|start_of_role|>user<|end_of_role|>",
        "<|end_of_text|>",
        ("<|start_of_role|>", "<|end_of_role|>"),
        eos="<|end_of_text|>",
    ),
    Style(
        "two marks for a turn",
        "{{ bos_token }}{% for m in messages %}<|START|>{% if m.role == 'user' %}<|USER|>{% elif m.role == 'assistant' %}"
        "<|BOT|>{% else %}<|SYS|>{% endif %}{{ m.content }}<|END|>{% endfor %}{% if add_generation_prompt %}<|START|><|BOT|>"
        "{% endif %}",
        "<|START|><|USER|>",
        "<|END|>",
        ("<|START|>", "<|USER|>", "<|BOT|>", "<|SYS|>", "<|END|>"),
        bos="<BOS>",
        eos="<|END|>",
    ),
    Style(
        "names",
        SPLIT
        + "{{ sys or 'A chat of a person and a machine.' }} {% for m in rest %}{% if m.role == 'user' %}USER: {{ m.content }} "
        "{% else %}ASSISTANT: {{ m.content }}</s>{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}",
        "USER:",
        "</s>",
        kind="metaspace",
        bos="<s>",
    ),
    Style(
        "headings",
        _turns("### Instruction:\n", "### Response:\n", "", "\n\n"),
        "### Instruction:",
        "</s>",
        kind="unigram",
    ),
)  # fmt: skip

UNMARKED = Style("no marks", "{% for m in messages %}{{ m.content }}\n{% endfor %}", "", "</s>")
"""Nobody can tell where a user begins."""
