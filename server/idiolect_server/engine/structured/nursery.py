"""Verdicts on constraints, from the process that tries them; kept by digest, each constraint tried once."""

import asyncio
import itertools
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from dataclasses import asdict

from cachetools import LRUCache

from idiolect_server.engine.structured.constraint import Constraint
from idiolect_server.errors import ConstraintRefused, NotReady

MAX_VERDICTS = 4096
MAX_AT_ONCE = 2
START_S, ANSWER_S = 120.0, 60.0
"""A machine that is busy starting engines imports PyTorch in half a minute."""
NICE = 10
"""Of the process: replies go first."""
MODULE = "idiolect_server.engine.structured.trial"


class Nursery:
    """Constraints that are to be tried before the engine has them. The process starts with the first one.

    Lives in one event loop.
    """

    def __init__(self, tokenizer: str, vocab_size: int) -> None:
        self._arguments = [tokenizer, str(vocab_size)]
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._at_once = asyncio.Semaphore(MAX_AT_ONCE)
        self._verdicts: LRUCache[str, str | None] = LRUCache(MAX_VERDICTS)
        self._trying: dict[str, asyncio.Task[None]] = {}
        self._answers: dict[str, asyncio.Future[str | None]] = {}
        self._numbers = itertools.count()

    async def check(self, constraint: Constraint) -> None:
        """Raises ConstraintRefused, NotReady when it cannot be tried."""
        digest = constraint.digest
        if digest not in self._verdicts:
            if digest not in self._trying:
                self._trying[digest] = asyncio.create_task(self._try(constraint))
                self._trying[digest].add_done_callback(lambda task: self._done(digest, task))
            await asyncio.shield(self._trying[digest])  # others may wait for the same one
        if (problem := self._verdicts[digest]) is not None:
            raise ConstraintRefused(f"the structured output is refused: {problem}")

    def condemn(self, constraint: Constraint) -> None:
        """Refuse it from now on: it has spent its allowance in the engine."""
        self._verdicts[constraint.digest] = "it takes too long per token"

    def _done(self, digest: str, task: asyncio.Task[None]) -> None:
        del self._trying[digest]
        if not task.cancelled():
            task.exception()  # nobody may wait for it any more

    def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _try(self, constraint: Constraint) -> None:
        async with self._at_once:
            process = await self._started()
            name = str(next(self._numbers))
            answer = self._answers[name] = asyncio.get_running_loop().create_future()
            try:
                line = json.dumps({"id": name, **asdict(constraint)})
                assert process.stdin is not None
                process.stdin.write(line.encode() + b"\n")
                await process.stdin.drain()
                self._verdicts[constraint.digest] = await asyncio.wait_for(answer, ANSWER_S)
            except (TimeoutError, OSError):
                self.close()  # the next one has a new process
                raise NotReady("structured outputs cannot be tried now", hint="try again shortly") from None
            finally:
                del self._answers[name]

    async def _started(self) -> Process:
        """The process, ready. Raises NotReady."""
        async with self._starting:
            if self._process is not None and self._process.returncode is None:
                return self._process
            environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
            # What xgrammar writes would put callers' texts into the log.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", MODULE, *self._arguments, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environment
            )
            assert self._process.stdout is not None
            with suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, self._process.pid, NICE)
            try:
                ready = await asyncio.wait_for(self._process.stdout.readline(), START_S)
            except TimeoutError:
                ready = b""
            if not ready:
                self.close()
                raise NotReady("structured outputs cannot be tried: the process for that does not start")
            self._reader = asyncio.create_task(self._read(self._process))
            return self._process

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            found = json.loads(line)
            if (answer := self._answers.get(found["id"])) is None or answer.done():
                continue  # nobody waits for it any more
            if found["busy"]:
                answer.set_exception(NotReady("the machine is too busy to try a structured output", hint="try again"))
            else:
                answer.set_result(found["problem"])
        if self._process is process:
            self._process = None
        await process.wait()
        for answer in self._answers.values():
            with suppress(asyncio.InvalidStateError):
                answer.set_exception(BrokenPipeError("the process has died"))
