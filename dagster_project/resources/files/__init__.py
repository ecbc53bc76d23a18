"""Files and memory of one machine: atomic writes, spill buffers, memory returned to the system."""
