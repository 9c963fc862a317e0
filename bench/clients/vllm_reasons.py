"""Why a test of vLLM passes on `vllm serve` and not on Idiolect, where that is meant and documented."""

_API = "../http-api.md"
_ABSENT = f"absent ([why]({_API}#what-vllm-serve-has-besides))"
_CHAT = f"refused ([why]({_API}#post-v1chatcompletions))"
_RAW = f"refused ([why]({_API}#post-v1completions))"
REASONS: dict[str, str] = {
    "test_batched_chat_completions": f"`/v1/chat/completions/batch` is {_ABSENT}",
    "test_invocations": f"`/invocations` is {_ABSENT}",
    "test_server_load": f"`/load` is {_ABSENT}",
    "test_tokenizer_info": f"`/tokenizer_info` is {_ABSENT}",
    "test_show_version": f"`version` is Idiolect's, and `vllm` the engine's ([docs]({_API}#get-version))",
    "test_kv_transfer": f"`kv_transfer_params` is {_CHAT}",
    "test_chat_echo.py::test_chat_session_with_echo": f"`echo` is {_CHAT}",
    "test_chat_echo.py::test_top_logprobs": f"`logprobs` is true or false, and this is a number ([docs]({_API}))",
    "test_prompt_logprobs": f"`prompt_logprobs` is {_CHAT}",
    "test_more_than_one_prompt_logprobs": f"`prompt_logprobs` is {_CHAT}",
    "test_comparison_with_prompt_logprobs": f"`prompt_logprobs` is {_CHAT}",
    "test_echo_logprob_completion": f"`echo` is {_RAW}",
    "test_return_tokens_as_ids.py::test_completion": f"`echo` is {_RAW}",
    "test_batch_completions": f"`use_beam_search` is {_RAW}",
    "test_completion_truncation_side": f"`truncate_prompt_tokens` is {_RAW}",
    "test_empty_prompt": f"`prompt_embeds` is {_RAW}, and the error says so",
    "test_enable_response_messages": f"`enable_response_messages` is refused ([docs]({_API}#post-v1responses))",
    "test_tokenize_chat": f"conversations are rendered for a reply only ([docs]({_API}#post-tokenize-post-detokenize))",
}
"""By what a test's name holds."""


def reason(test: str) -> str | None:
    """The first that fits."""
    return next((why for part, why in REASONS.items() if part in test), None)
