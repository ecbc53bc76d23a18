"""Alerts and actions of other systems, fetched by heed: one module per system, and the road into `raw`."""
