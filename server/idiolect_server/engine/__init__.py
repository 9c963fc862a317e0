"""The engine: vLLM, and how user tokens get into it. Nothing outside this package imports vllm."""
