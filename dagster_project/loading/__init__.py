"""Loading: users' files into the raw tables, nothing lost, the same file twice without effect.

Belongs here: what files may look like (`contract.py`, `mapping.py`, `columns.py`), how bytes become records
(`readers/`), how records become rows (`rows.py`), and the one transaction in which rows arrive (`load.py`).
Does not belong here: what a row means. Times, numbers and duplicates are read by dbt's staging models; connections
come from `resources/warehouse/connection.py`.
"""

from dagster_project.loading.contract import Kind
from dagster_project.loading.load import load_file
from dagster_project.loading.mapping import Mapping, read_mapping
from dagster_project.loading.report import LoadProgress, LoadReport

__all__ = ["Kind", "LoadProgress", "LoadReport", "Mapping", "load_file", "read_mapping"]
