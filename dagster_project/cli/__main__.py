"""`python -m dagster_project.cli`: the same as `heed`.

Belongs here: nothing else.
"""

from dagster_project.cli import main

main()
