"""How loops are compiled: by numba, when their module is imported, with a cache on disk.

Belongs here: the decorator and the argument types that all compiled loops share.
Does not belong here: any loop (`features/history/kernels.py`, `flags/floods/kernels.py`, `learning/trees/kernels.py`).

Importing this module imports numba, which takes a second: import it where something is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba import types


def read_only(dtype: types.Type, dimensions: int = 1) -> types.Array:
    """An array that is only read: pandas returns read-only views, and both kinds share one specialisation."""
    return types.Array(dtype, dimensions, "C", readonly=True)


def compiled(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile for exactly this signature, or load it from numba's cache; the loop releases the GIL.

    Loops are run from ordinary threads: numba's own parallel loops would double the time of a first start, and its
    default thread pool must not be entered from two threads at once, which a Dagster process may do.
    """
    compiler: Any = numba.njit

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return compiler(signature, nogil=True, cache=True, error_model="numpy")(function)
        except (RuntimeError, OSError):
            # No folder is writable for the cache (a read-only image): compile in every process rather than fail.
            return compiler(signature, nogil=True, error_model="numpy")(function)

    return decorate
