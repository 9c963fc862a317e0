"""What vLLM's protocols (chat, completions, responses, messages) have in common here: each request is a turn."""
