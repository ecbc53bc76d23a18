"""The domain: pure functions on frames and arrays.

Belongs here: time-aware features, flags, learning, judging, scoring, replay.
Does not belong here: Dagster, Great Expectations, SQL, files, settings. A test holds this.
"""
