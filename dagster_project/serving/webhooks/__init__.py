"""Webhooks of other systems: their signatures, what their events mean, and how they become rows of `raw`."""
