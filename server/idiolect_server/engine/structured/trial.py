"""A process that compiles constraints and follows them for some tokens, so that it dies of them, and no other.

`python -m idiolect_server.engine.structured.trial TOKENIZER VOCABULARY_SIZE` loads the tokenizer once. Each line of its
input, `{"id", "kind", "text", "patterns"}`, is tried in a fork with limits of memory and time; each line of its output,
`{"id", "problem", "busy"}`, says what is wrong with one, or null, and whether the machine was too busy to tell. It has
no threads when it forks. It ends with its input.
"""

import ctypes
import json
import os
import random
import re
import resource
import selectors
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xgrammar as xgr
from transformers import AutoTokenizer

from idiolect_server.engine.structured.allowance import START_S, Allowance
from idiolect_server.engine.time_slice import USUAL_NS, take_turns

MEMORY_BYTES = 1 << 30
"""On top of what the process has when it forks."""
PROCESSOR_S, REAL_S = 6, 20
COMPILE_S = 1.5
"""Of computing time; the engine does the same, in threads beside everybody's replies."""
COMPILED_BYTES = 64 << 20
N_WALKS, N_PATTERN_WALKS, N_TOKENS = 6, 2, 96
STAY = 0.5
"""How often a walk takes the token again that it took last: what is repeated costs most."""
STACK_BYTES = 4 << 20
"""Less than a thread of the engine has."""


def _compile(compiler: xgr.GrammarCompiler, kind: str, text: str) -> Any:
    """As vLLM's XgrammarBackend does. Raises what xgrammar raises."""
    if kind == "json":
        return compiler.compile_json_schema(text, any_whitespace=True, separators=None)
    if kind == "regex":
        return compiler.compile_regex(text)
    if kind == "grammar":
        return compiler.compile_grammar(text)
    tag = json.loads(text)
    if "structures" in tag:
        items = [
            xgr.StructuralTagItem(begin=each["begin"], schema=json.dumps(each["schema"]), end=each["end"])
            for each in tag["structures"]
        ]
        return compiler.compile_structural_tag(items, tag["triggers"])
    return compiler.compile_structural_tag(text)


def _problem(info: xgr.TokenizerInfo, kind: str, text: str, patterns: list[str]) -> str | None:
    """What is wrong with a constraint, or with one of the patterns in it."""
    compiler, began_s = xgr.GrammarCompiler(info, max_threads=1, cache_enabled=False), time.process_time()
    try:
        compiled = _compile(compiler, kind, text)
    except MemoryError:
        return "it needs too much memory"
    except Exception as error:  # xgrammar raises any of many
        reason = re.sub(r"^\[[\d:]+\] \S+: ", "", " ".join(str(error).split()))  # without the place in its source
        return f"it cannot be compiled: {reason[:200]}"
    if time.process_time() - began_s > COMPILE_S:
        return f"it takes more than {COMPILE_S} seconds to compile"
    if compiled.memory_size_bytes > COMPILED_BYTES:
        return f"it takes more than {COMPILED_BYTES >> 20} MiB when compiled"
    if not _is_cheap(compiled, N_WALKS):
        return "it takes too long per token"
    for pattern in patterns:
        with suppress(RuntimeError):  # what is left of a pattern need not be one
            if not _is_cheap(compiler.compile_regex(pattern), N_PATTERN_WALKS):
                return f"it takes too long per token: {pattern[:64]}"
    return None


def _is_cheap(compiled: Any, n_walks: int) -> bool:
    # Half of what it may cost in the engine: no request should come close to that.
    return all(_walk(compiled, Allowance(START_S / 2), seed) for seed in range(n_walks))


def _walk(compiled: Any, allowance: Allowance, seed: int) -> bool:
    """Whether a reply of random tokens that it allows keeps to the allowance."""
    vocab_size = compiled.tokenizer_info.vocab_size
    matcher, mask, rng = xgr.GrammarMatcher(compiled), xgr.allocate_token_bitmask(1, vocab_size), random.Random(seed)
    last = None
    for _ in range(N_TOKENS):
        with allowance.step():
            matcher.fill_next_token_bitmask(mask, 0)
        if allowance.is_spent:
            return False
        allowed = np.unpackbits(mask.numpy().view(np.uint8), bitorder="little")[:vocab_size].nonzero()[0]
        allowed = allowed[~np.isin(allowed, compiled.tokenizer_info.stop_token_ids)]  # a reply could go on
        if not len(allowed):
            return True
        if last is None or rng.random() > STAY or last not in allowed:
            last = int(allowed[rng.randrange(len(allowed))])
        with allowance.step():
            matcher.accept_token(last)
        if matcher.is_terminated():
            return True
    return not allowance.is_spent


def _limit() -> None:
    """The limits of a fork, which it cannot lift again."""
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_S,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_REAL, REAL_S)


@dataclass
class _Trials:
    """What is running: the read end of each fork's pipe, its process, the id of what it tries."""

    info: xgr.TokenizerInfo
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def begin(self, asked: dict[str, Any]) -> None:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                _limit()
                os.write(
                    write, json.dumps(_problem(self.info, asked["kind"], asked["text"], asked["patterns"])).encode()
                )
                status = 0
            finally:
                os._exit(status)
        os.close(write)
        self.selector.register(read, selectors.EVENT_READ, (pid, asked["id"]))

    def end(self, read: int, pid: int, name: str) -> None:
        """Say what a fork found, or what it died of."""
        said = os.read(read, 4096)
        self.selector.unregister(read)
        os.close(read)
        _, status = os.waitpid(pid, 0)
        problem = json.loads(said) if said else "it takes too much time or memory"
        busy = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
        sys.stdout.write(json.dumps({"id": name, "problem": problem, "busy": busy}) + "\n")
        sys.stdout.flush()


def main(tokenizer: str, vocab_size: int) -> None:
    take_turns(USUAL_NS)  # not the server's, which it has inherited
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES, resource.getrlimit(resource.RLIMIT_STACK)[1]))
    ctypes.CDLL(None).mallopt(-8, 1)  # M_ARENA_MAX: an arena takes address space that is not used
    trials = _Trials(
        xgr.TokenizerInfo.from_huggingface(AutoTokenizer.from_pretrained(tokenizer), vocab_size=vocab_size)
    )
    trials.selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
    sys.stdout.write("{}\n")  # ready
    sys.stdout.flush()
    begun = b""
    while True:
        for key, _ in trials.selector.select():
            if key.data is not None:
                trials.end(key.fd, *key.data)
                continue
            if not (read := os.read(key.fd, 1 << 16)):
                return
            *lines, begun = (begun + read).split(b"\n")
            for line in lines:
                trials.begin(json.loads(line))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
