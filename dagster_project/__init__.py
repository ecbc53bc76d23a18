"""heed: scores operational alerts with the probability that somebody will act on them.

See `docs/data-engineer.md` for the rooms of this package and the one direction in which they import each other.
"""

import os

# LightGBM's OpenMP threads wait for each other at the end of every loop. By default they spin, which on a machine that
# others use as well wastes whole time slices: 100 trees on 15,000 alerts with 2 threads on 2 busy cores took 4.7 to
# 11.7 s spinning, 0.8 s sleeping, and the same on idle cores. Read when the library is loaded, so set before that.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
