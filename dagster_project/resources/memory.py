"""Giving memory back between the stages of a run.

Belongs here: what a stage no longer holds and the allocators still keep.
Does not belong here: what a stage holds.

A job runs in one process, so that imports and connections are paid for once. The price: the C library and Arrow keep
freed pages for later, and the most memory of one stage stands below the next one.
"""

import ctypes
import sys

import dagster as dg


def give_back() -> None:
    """Return freed pages to the system, as far as the allocators can."""
    if (arrow := sys.modules.get("pyarrow")) is not None:
        arrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # glibc has it, musl has not
        trim(0)


@dg.success_hook(name="give_back_memory")
def give_back_memory(_: dg.HookContext) -> None:
    """After each stage."""
    give_back()
