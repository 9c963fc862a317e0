"""The turns of the processes that answer: short, so that they go before whoever computes, the model for one.

Linux gives every process its share of a core, and lets one that wakes up run at once if its turn is the shorter one
(EEVDF, Linux 6.12 and later, https://docs.kernel.org/scheduler/sched-eevdf.html). If all turns are equally long, the
server's event loop and Redis wait milliseconds for a core that the model computes on. Shares stay as they are. Earlier
kernels take no note of it.

Long turns for the model would put it last behind every other process, too: its threads wake up for each other hundreds
of times a step, and beside one process that never rests a step took minutes (`make busy-host`).
"""

import ctypes
import os
import platform
import struct
from pathlib import Path

SHORTEST_NS = 100_000
"""What Linux takes at least."""
USUAL_NS = 0
"""As many as the kernel gives everybody."""
_SET, _GET = {"x86_64": (314, 315), "aarch64": (274, 275)}.get(platform.machine(), (None, None))
_ATTR = struct.Struct("=IIQiIQQQII")
"""sched_attr: size, policy, flags, nice, priority, runtime, deadline, period, two clamps (sched_setattr(2))."""


def take_turns(turn_ns: int) -> None:
    """For this process's threads, and all that they will start. Nothing happens where the operator has chosen another
    policy.
    """
    if os.sched_getscheduler(0) == os.SCHED_OTHER:
        for thread in Path("/proc/self/task").glob("*"):
            set_turn(int(thread.name), turn_ns)


def set_turn(thread_id: int, turn_ns: int) -> None:
    """Thread 0 is the one that calls. Nothing happens when there is no such thread any more."""
    if _SET is not None:
        try:
            nice = os.getpriority(os.PRIO_PROCESS, thread_id)
        except ProcessLookupError:
            return
        attr = _ATTR.pack(_ATTR.size, os.SCHED_OTHER, 0, nice, 0, turn_ns, 0, 0, 0, 0)
        ctypes.CDLL(None).syscall(_SET, thread_id, attr, 0)


def get_turn(thread_id: int) -> int:
    """In nanoseconds; 0 where Linux does not say."""
    attr = ctypes.create_string_buffer(_ATTR.size)
    if _GET is None or ctypes.CDLL(None).syscall(_GET, thread_id, attr, _ATTR.size, 0) != 0:
        return 0
    return int(_ATTR.unpack(attr.raw)[5])
