"""vLLM plugin: registers the model classes that accept user tokens. Loaded by vLLM in each of its processes.

It settles how these processes live beside the others, too.
"""

import multiprocessing
import os
import threading
import time
from functools import cache

from idiolect_server.engine.seeds import put_generators_back
from idiolect_server.engine.structured.watch import watch_constraints
from idiolect_server.engine.time_slice import USUAL_NS, take_turns
from idiolect_server.scratch import sweep

PARENT_LOOK_S = 0.5
"""Between looks at whether the server is still there."""
ARCHITECTURES = {
    f"{family}ForCausalLM": f"{family}WithUserTokens"
    for family in (
        *("Cohere", "Gemma", "Gemma2", "Gemma3", "Granite", "Llama", "Mistral", "Mixtral"),
        *("Phi3", "Qwen2", "Qwen3", "Qwen3Moe"),
    )
}
"""Architecture of the base model's config -> our class, which adds nothing but the place for user tokens."""


def register() -> None:
    """Entry point of group `vllm.general_plugins`; may run more than once."""
    from vllm import ModelRegistry
    from vllm.platforms import current_platform

    known = ModelRegistry.get_supported_archs()
    for name in ARCHITECTURES.values():
        if name not in known:
            # By name: vLLM imports the class only where a model is built.
            ModelRegistry.register_model(name, f"idiolect_server.engine.model:{name}")
    parent = multiprocessing.parent_process()
    if parent is None:
        # The server itself. An engine that is forked from it does not come by here again.
        _follow_forks()
        return
    assert parent.pid is not None
    _end_with_parent(parent.pid)
    watch_constraints()
    take_turns(USUAL_NS)  # not the server's, which its children inherit
    if current_platform.is_cpu():
        put_generators_back()


def _end_with_parent(parent_pid: int) -> None:
    """vLLM's engine and workers outlive a server that was killed and hold its memory, so that none can start anew."""
    name = "end-with-parent"
    if any(thread.name == name for thread in threading.enumerate()):
        return

    def wait() -> None:
        while os.getppid() == parent_pid:
            time.sleep(PARENT_LOOK_S)
        sweep(parent_pid)
        os._exit(1)

    threading.Thread(target=wait, name=name, daemon=True).start()


@cache
def _follow_forks() -> None:
    os.register_at_fork(after_in_child=lambda: _end_with_parent(os.getppid()))
