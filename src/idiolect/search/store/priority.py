"""Background work gives way to searches: it runs at a lower priority where the system allows it."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

__all__ = ["lower_priority"]

_NICE = 10  # about a tenth of the processor time of a thread that searches


def lower_priority() -> None:
    """Lower the priority of this thread, and of threads that it starts.

    Only Linux has priorities of threads; elsewhere this does nothing.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):
            priority = max(_NICE, os.getpriority(os.PRIO_PROCESS, thread))
            os.setpriority(os.PRIO_PROCESS, thread, priority)
