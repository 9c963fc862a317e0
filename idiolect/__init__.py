"""The shared core: what the trainer and the server must agree on, and nothing else.

No torch, vllm, redis or fastapi here, so that either side can be installed alone.
"""

__version__ = "0.1.0"
