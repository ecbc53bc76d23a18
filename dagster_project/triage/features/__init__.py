"""Features: what is known about an alert when it is raised.

Belongs here: the alert's own facts, its attributes, the history of its keys, and the matrix a model sees.
Does not belong here: which alerts are flagged (`triage/flags`), learning (`triage/learning`).
"""
