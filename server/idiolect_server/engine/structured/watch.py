"""In the engine's process: constraints are compiled behind the model, and one that costs too much fails its request.

vLLM fills the masks of all requests on the one thread that also computes their next tokens. What a trial (`trial.py`)
did not come across, such as costs that grow with a reply, ends here.
"""

import os
import threading
from functools import cache
from typing import Any

from idiolect_server.engine.structured.allowance import Allowance

NICE = 10
"""Of threads that compile, so that those which compute the model go first."""


@cache
def watch_constraints() -> None:
    """Have vLLM make grammars that are watched."""
    from vllm.v1.structured_output import StructuredOutputManager, backend_xgrammar

    compile_one = StructuredOutputManager._create_grammar

    def compile_behind(manager: Any, request: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():  # on which the model is computed
            # Linux knows priorities of threads; those that xgrammar starts take that of this one.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        return compile_one(manager, request)

    StructuredOutputManager._create_grammar = compile_behind

    class Watched(backend_xgrammar.XgrammarGrammar):  # type: ignore[misc]
        """vLLM's grammar with an allowance. Once that is spent, it allows every token, and refuses the one chosen."""

        def __init__(self, **parts: Any) -> None:
            super().__init__(**parts)
            self._allowance = Allowance()

        def fill_bitmask(self, bitmask: Any, idx: int) -> None:
            if self._allowance.is_spent:
                bitmask[idx].fill_(-1)
                return
            with self._allowance.step():
                super().fill_bitmask(bitmask, idx)

        def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
            if self._allowance.is_spent:
                return False
            with self._allowance.step():
                return bool(super().accept_tokens(request_id, tokens))

    backend_xgrammar.XgrammarGrammar = Watched
