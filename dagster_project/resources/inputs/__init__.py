"""What was loaded, counted for people.

Belongs here: action types with what heed takes them for, and rows of files that could not be decoded.
Does not belong here: loading files (`loading/`), cleaning rows (dbt).
"""
