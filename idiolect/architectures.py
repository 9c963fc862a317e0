"""Architectures of base models on which trainer and server must agree."""

SERVED_OTHERWISE = frozenset({"Cohere2ForCausalLM", "GPTNeoXForCausalLM", "StableLmForCausalLM"})
"""What vLLM computes otherwise than transformers, or not at all: neither trained nor served (docs/training.md)."""
