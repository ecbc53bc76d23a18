"""What is learned from outcomes, as plain numbers.

Belongs here: models that are fitted on known outcomes and applied later.
Does not belong here: measuring them (`evaluation`) and deciding which of them serves (the gate).
"""
