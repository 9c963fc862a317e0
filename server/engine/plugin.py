"""vLLM plugin: registers the model classes that accept user tokens. Loaded by vLLM in each of its processes."""

ARCHITECTURES = {
    "LlamaForCausalLM": "LlamaWithUserTokens",
    "MistralForCausalLM": "MistralWithUserTokens",
    "Qwen2ForCausalLM": "Qwen2WithUserTokens",
    "Qwen3ForCausalLM": "Qwen3WithUserTokens",
}
"""Architecture of the base model's config -> our class, which adds nothing but the place for user tokens."""


def register() -> None:
    """Entry point of group `vllm.general_plugins`; may run more than once."""
    from vllm import ModelRegistry

    known = ModelRegistry.get_supported_archs()
    for name in ARCHITECTURES.values():
        if name not in known:
            # By name: vLLM imports the class only where a model is built.
            ModelRegistry.register_model(name, f"server.engine.model:{name}")
