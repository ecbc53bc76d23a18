"""One module per `heed` command.

Belongs here: what a command does, callable without a terminal.
Does not belong here: arguments and exit statuses (`cli/`), and what runs need as well (`resources/`, `triage/`).
"""
