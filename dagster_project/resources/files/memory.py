"""Returning memory to the system between the stages of a run.

Belongs here: memory that a stage has freed and the allocators still keep.
Does not belong here: memory that a stage uses.

A job runs in one process, so that imports and connections are paid for once. The price: the C library and Arrow keep
freed pages, and the peak of one stage remains under the next one.
"""

import ctypes
import gc
import resource
import sys

import dagster as dg
import pandas as pd

# Garbage is collected only above this resident memory: below it there is little to gain.
WORTH_COLLECTING = 1_000_000_000

_frozen: list[bool] = []


def give_back() -> None:
    """Return freed pages to the system, as far as the allocators can."""
    # After the first stage most objects are imported code, hundreds of thousands of them. Scanning them again after
    # every stage would take half a second each time.
    if not _frozen:
        gc.freeze()
        _frozen.append(True)
    if _resident() > WORTH_COLLECTING:
        gc.collect()
    if (arrow := sys.modules.get("pyarrow")) is not None:
        arrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # glibc has it, musl has not
        trim(0)


def release(frame: pd.DataFrame) -> None:
    """Empty a frame that is written and will not be read again.

    A run in this process (`heed run`) keeps the outputs of its stages until it ends: 2 GB with a million alerts.
    """
    frame.drop(index=frame.index, inplace=True)


def _resident() -> int:
    """Bytes of resident memory; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0


@dg.success_hook(name="give_back_memory")
def give_back_memory(_: dg.HookContext) -> None:
    """After each stage."""
    give_back()
