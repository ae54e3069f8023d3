"""The clock that leases run on: the machine's own, which nobody can set.

Knows clocks; knows nothing of leases. Processes of one machine share it until a reboot, so a
lease names its boot, and one of another boot has ended.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LeaseClock", "machine_clock"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class LeaseClock(NamedTuple):
    """``now`` in seconds since an origin that ``boot`` names."""

    boot: str
    now: Callable[[], float]


def machine_clock() -> LeaseClock:
    """Seconds since boot, time asleep included; wall time where a machine does not say its boot."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    try:
        boot = _BOOT_ID.read_text().strip()
    except OSError:
        boot = ""
    if boottime is None or not boot:
        return LeaseClock("wall time", time.time)
    return LeaseClock(boot, lambda: time.clock_gettime(boottime))
