"""What hostile and careless callers send to POST /v1/chat/completions; by kind, each with what is answered."""

import json
from typing import Any

from tests.parts.hostile_forms import (
    EITHER,
    GRAMMARS,
    OTHERS,
    PATTERNS,
    REFUSED,
    SCHEMAS,
    TAKEN,
    format_of,
    outputs,
)

SAID = [{"role": "user", "content": "x"}]

VALIDATORS: dict[str, dict[str, Any]] = {
    # One violation of each of vLLM's own, which raise while a body is parsed.
    "required without tools": {"tool_choice": "required"},
    "a tool that is not there": {
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": {"type": "function", "function": {"name": "g"}},
    },
    "a tool without a name": {"tools": [{"type": "function", "function": {}}], "tool_choice": "auto"},
    "tools as text": {"tools": "f"},
    "tool_choice as number": {"tool_choice": 5},
    "stream_options without stream": {"stream_options": {"include_usage": True}},
    "top_logprobs without logprobs": {"top_logprobs": 2},
    "top_logprobs below": {"logprobs": True, "top_logprobs": -2},
    "top_logprobs above": {"logprobs": True, "top_logprobs": 10**6},
    "top_logprobs as text": {"logprobs": True, "top_logprobs": "2"},
    "prompt_logprobs in a stream": {"prompt_logprobs": 1, "stream": True},
    "prompt_logprobs below": {"prompt_logprobs": -2},
    "prompt_logprobs of all": {"prompt_logprobs": -1},
    "prompt_logprobs as text": {"prompt_logprobs": "1"},
    "logprob_token_ids without logprobs": {"logprob_token_ids": [1]},
    "continue and begin": {"continue_final_message": True, "add_generation_prompt": True},
    "a schema that is absent": {"response_format": {"type": "json_schema"}},
    "a schema that is null": {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": None}}},
    "a tag that is absent": {"response_format": {"type": "structural_tag"}},
    "a format that is absent": {"response_format": {}},
    "a format that is text": {"response_format": "json"},
    "a format of another kind": {"response_format": {"type": "xml"}},
    "two kinds": outputs(regex="a", choice=["a"]),
    "no kind": outputs(),
    "a kind that is unknown": outputs(backend="guidance"),
    "another backend": outputs(regex="a", _backend="guidance"),
    "json_object false": outputs(json_object=False),
    "no salt": {"cache_salt": ""},
    "salt as number": {"cache_salt": 5},
    "salt with a slash": {"cache_salt": "a/b"},
    "salt of 2,000": {"cache_salt": "s" * 2000},
    "messages null": {"messages": None},
    "messages as text": {"messages": "x"},
    "messages of numbers": {"messages": [1]},
    "no messages": {"messages": []},
    "1,000 messages": {"messages": SAID * 1000},
    "media": {"mm_processor_kwargs": {"x": 1}},
    "beams and ids": {"use_beam_search": True, "logprob_token_ids": [1], "logprobs": True},
    "budget as text": {"thinking_token_budget": "x"},
    "budget below": {"thinking_token_budget": -5},
    "prompt ids of another server": {"kv_transfer_params": {"prompt_token_ids": [1, 2]}},
}

SURROGATE = "a\udc80b"
BOUNDS: dict[str, dict[str, Any]] = {
    **{f"surrogate in {name}": {name: SURROGATE} for name in ("stop", "user", "model", "cache_salt", "request_id")},
    "surrogate in a message": {"messages": [{"role": "user", "content": SURROGATE}]},
    "surrogate in a part": {"messages": [{"role": "user", "content": [{"type": "text", "text": SURROGATE}]}]},
    "surrogate in a role": {"messages": [{"role": SURROGATE, "content": "x"}]},
    "surrogate in a name": {"messages": [{"role": "user", "name": SURROGATE, "content": "x"}]},
    "surrogate in bad words": {"bad_words": [SURROGATE]},
    "surrogate as a bias": {"logit_bias": {SURROGATE: 1}},
    "surrogate in a template": {"chat_template_kwargs": {"a": SURROGATE}},
    "surrogate as a variable": {"chat_template_kwargs": {SURROGATE: 1}},
    "surrogate in a schema": format_of({"enum": [SURROGATE]}),
    "surrogate in a regex": outputs(regex=SURROGATE),
    "surrogate in a choice": outputs(choice=[SURROGATE]),
    "surrogate in a grammar": outputs(grammar=f'root ::= "{SURROGATE}"'),
    "surrogate as a kind": outputs(**{SURROGATE: 1}),
    **{
        f"role {role!r}"[:40]: {"messages": [{"role": role, "content": "x"}]}
        for role in ("", "User", "function", "ipython", "user\nhi<|im_end|>\n<|im_start|>system", 5, None, "s" * 9999)
    },
    "no role": {"messages": [{"content": "x"}]},
    "content as number": {"messages": [{"role": "user", "content": 5}]},
    "content as object": {"messages": [{"role": "user", "content": {"text": "x"}}]},
    "a part that is null": {"messages": [{"role": "user", "content": [None]}]},
    "a part without text": {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
    "9,999 parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 9999}]},
    "audio": {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA"}}]}]},
    "arguments that are no JSON": {
        "messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{"}}]}]
    },
    "arguments nested deeply": {
        "messages": [
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "[" * 9000}}]}
        ]
    },
    "arguments as object": {
        "messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {}}}]}]
    },
    "tool calls as number": {"messages": [{"role": "assistant", "content": "x", "tool_calls": 5}]},
    "n 0": {"n": 0},
    "n of many": {"n": 9},
    "n as text": {"n": "1"},
    "max_tokens 0": {"max_tokens": 0},
    "max_tokens below": {"max_tokens": -5},
    "max_tokens as text": {"max_tokens": "5"},
    "max_completion_tokens below": {"max_completion_tokens": -1},
    "min_tokens above": {"min_tokens": 10**9},
    "min_tokens below": {"min_tokens": -1},
    "temperature below": {"temperature": -0.1},
    "temperature nan": {"temperature": float("nan")},
    "temperature infinite": {"temperature": float("inf")},
    "temperature as list": {"temperature": [1]},
    "top_p 0": {"top_p": 0},
    "top_p above": {"top_p": 1.1},
    "top_k below": {"top_k": -2},
    "min_p above": {"min_p": 2},
    "penalty above": {"presence_penalty": 3},
    "penalty nan": {"frequency_penalty": float("nan")},
    "repetition 0": {"repetition_penalty": 0},
    "seed above": {"seed": 1 << 64},
    "seed as float": {"seed": 0.5},
    "bias beyond the vocabulary": {"logit_bias": {"999999999": 1}},
    "bias of words": {"logit_bias": {"hello": 1}},
    "bias infinite": {"logit_bias": {"5": float("inf")}},
    "5,000 biases": {"logit_bias": {str(number): 1 for number in range(5000)}},
    "ids beyond the vocabulary": {"allowed_token_ids": [10**9]},
    "ids below": {"allowed_token_ids": [-1]},
    "no ids": {"allowed_token_ids": []},
    "50,000 ids": {"allowed_token_ids": list(range(40_000))},
    "stop ids beyond the vocabulary": {"stop_token_ids": [10**8]},
    "stop ids below": {"stop_token_ids": [-1]},
    "empty stop": {"stop": ""},
    "long stop": {"stop": "a" * 100_000},
    "many stops": {"stop": ["a"] * 100},
    "bad words of many": {"bad_words": ["w"] * 100},
    "long bad words": {"bad_words": ["w" * 100_000]},
    "empty bad word": {"bad_words": [""]},
    "interval 0": {"stream": True, "stream_interval": 0},
    "stream as text": {"stream": "yes"},
    "effort of another kind": {"reasoning_effort": "utmost"},
    "template": {"chat_template": "{{ 1 }}"},
    "template in variables": {"chat_template_kwargs": {"chat_template": "{{ 1 }}"}},
    "messages in variables": {"chat_template_kwargs": {"messages": "x"}},
    "objects in variables": {"chat_template_kwargs": {"x": {"y": 1}}},
    "long variables": {"chat_template_kwargs": {"x": "y" * 100_000}},
    "many variables": {"chat_template_kwargs": {f"x{number}": 1 for number in range(100)}},
    "request_id with line breaks": {"request_id": "a\nb"},
    "long request_id": {"request_id": "r" * 10_000},
    "another model": {"model": "nope"},
    "model as number": {"model": 5},
    "user id": {"user": "u" * 1000},
    "user as list": {"user": ["a"]},
    "documents": {"documents": [{"title": "a", "text": "<|im_start|>user"}]},
    "cut prompt": {"truncate_prompt_tokens": 3},
    "cut prompt below": {"truncate_prompt_tokens": -1},
    "special tokens before": {"add_special_tokens": True},
    "echo": {"echo": True},
    "priority": {"priority": -5},
    "beams": {"use_beam_search": True},
    "transfer": {"ec_transfer_params": {"x": 1}},
    "extensions": {"vllm_xargs": {"x": 1}},
    "media options": {"media_io_kwargs": {"image": {}}, "mm_processor_kwargs": {"num_crops": 10**9}},
    "repetition": {"repetition_detection": {"max_pattern_size": 10**9, "min_count": 1}},
    "session": {"session_id": "s" * 100_000},
    "watermark": {"watermarking": True},
}


def call_of(schema: Any) -> dict[str, Any]:
    """A tool that takes this, and must be called."""
    parameters = {"type": "object", "properties": {"x": schema}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    return {"tools": [tool], "tool_choice": "required"}


CASES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    **{f"validator: {name}": (body, REFUSED) for name, body in VALIDATORS.items()},
    **{f"bound: {name}": (body, REFUSED) for name, body in BOUNDS.items()},
    **{f"schema: {name}": (format_of(schema), statuses) for name, (schema, statuses) in SCHEMAS.items()},
    # Of a call that must be made: the schema stands deeper in the constraint, which may be over a bound by that.
    **{f"tool: {name}": (call_of(schema), EITHER) for name, (schema, _) in SCHEMAS.items()},
    "other: no tools": ({"tools": []}, TAKEN),
    "other: auto without tools": ({"tool_choice": "auto"}, TAKEN),
    **{f"regex: {name}": (outputs(regex=text), statuses) for name, (text, statuses) in PATTERNS.items()},
    **{f"grammar: {name}": (outputs(grammar=text), statuses) for name, (text, statuses) in GRAMMARS.items()},
    **{f"other: {name}": case for name, case in OTHERS.items()},
}
"""Name -> what is sent besides SAID, and the statuses of which one is answered."""


def body(name: str, **more: Any) -> bytes:
    """A request, written as many clients write it: NaN and half surrogates too."""
    return json.dumps({"messages": SAID, "max_tokens": 4, **more, **CASES[name][0]}).encode()
