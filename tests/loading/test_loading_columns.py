"""Headers and mappings: what each column becomes, and one clear line where that cannot be decided."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagster_project.errors import HeedError
from dagster_project.loading import Mapping, load_file, read_mapping
from dagster_project.loading.columns import plan_columns


def mapping_of(tmp_path: Path, text: str) -> Mapping:
    path = tmp_path / "mapping.toml"
    path.write_text(text, encoding="utf-8")
    return read_mapping(path)


def plan(header: str, mapping: Mapping | None = None, kind="alerts"):
    return plan_columns(kind, header.split(","), mapping or Mapping(), "file.csv")


def test_contract_names_are_taken_and_all_else_becomes_an_attribute():
    planned = plan("alert_id,raised_at,zone,rule,campaign")
    assert planned.contract == {"alert_id": 0, "raised_at": 1, "rule": 3}
    assert planned.attributes == (("campaign", 4), ("zone", 2))
    assert planned.ignored == ()


def test_case_blanks_and_hyphens_do_not_matter():
    assert plan(" Alert ID ,Raised-At,RULE").contract == {"alert_id": 0, "raised_at": 1, "rule": 2}


def test_a_column_without_a_name_is_kept_under_its_position():
    assert plan("alert_id,raised_at,rule,").attributes == (("unnamed_4", 3),)


def test_columns_that_heed_writes_itself_are_never_taken_from_a_file():
    planned = plan("alert_id,raised_at,rule,loaded_at,row_hash,load_id")
    assert planned.attributes == ()
    assert planned.ignored == ("loaded_at", "row_hash", "load_id")


def test_kinds_without_attributes_name_what_they_leave_out():
    assert plan("rule,team,colour", kind="rules").ignored == ("colour",)


def test_a_mapping_renames_and_leaves_out(tmp_path):
    mapping = mapping_of(tmp_path, '[alerts]\nrule = "vulnerability"\nignore = ["internal note"]\n')
    planned = plan("alert_id,raised_at,vulnerability,rule,Internal Note", mapping)
    assert planned.contract["rule"] == 2
    assert planned.attributes == (("rule", 3),)  # the mapping wins; the file's own column of that name is not lost
    assert planned.ignored == ("Internal Note",)


def test_a_mapping_for_other_kinds_changes_nothing(tmp_path):
    mapping = mapping_of(tmp_path, '[actions]\nactor = "who"\n')
    assert mapping.fingerprint("alerts") == b""
    assert mapping.fingerprint("actions") != b""


def refused(call) -> str:
    with pytest.raises(HeedError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def test_a_missing_required_column_is_named_with_its_nearest_match_and_the_remedy():
    message = refused(lambda: plan("alert_id,raise_time,rule"))
    assert "no column raised_at" in message
    assert "'raise_time'" in message
    assert 'under [alerts] write raised_at = "raise_time"' in message


def test_a_missing_column_that_nothing_resembles_shows_the_header():
    message = refused(lambda: plan("alert_id,raised_at,vulnerability"))
    assert "no column rule" in message
    assert "'vulnerability'" in message
    assert 'rule = "your_column"' in message


def test_duplicate_header_names_are_refused():
    assert "'rule' twice" in refused(lambda: plan("alert_id,raised_at,rule,rule"))
    assert "'rule' and 'Rule' twice" in refused(lambda: plan("alert_id,raised_at,rule,Rule"))
    assert plan("alert_id,raised_at,rule,zone,zone,zone 2").attributes == (("zone", 3), ("zone 2", 5), ("zone 2_", 4))
    assert plan("alert_id,raised_at,rule,zone,Zone").attributes == (("Zone", 4), ("zone", 3))


def test_a_header_name_cannot_break_the_message():
    message = refused(lambda: plan("alert_id,raised_at,ru\x1b[31mle\n" + "x" * 5000))
    assert "\x1b" not in message
    assert len(message) < 600


def test_a_mapped_column_that_is_not_in_the_file(tmp_path):
    mapping = mapping_of(tmp_path, '[alerts]\nrule = "vulnerabilty"\n')
    message = refused(lambda: plan("alert_id,raised_at,vulnerability", mapping))
    assert "takes rule from the column 'vulnerabilty'" in message
    assert "did you mean 'vulnerability'" in message
    assert "mapping.toml" in message


def test_an_ignored_column_that_is_not_in_the_file(tmp_path):
    mapping = mapping_of(tmp_path, '[alerts]\nignore = ["nothing"]\n')
    assert "ignores the column 'nothing'" in refused(lambda: plan("alert_id,raised_at,rule", mapping))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('[alert]\nrule = "x"\n', ("table 'alert'", "did you mean [alerts]")),
        ('[alerts]\nrules = "x"\n', ("'rules'", "did you mean rule")),
        ('[alerts]\nloaded_at = "x"\n', ("'loaded_at'", "no column of heed's contract")),
        ("[alerts]\nrule = 5\n", ("rule of [alerts]", 'write rule = "your_column"')),
        ('[alerts]\nrule = "x"\ntitle = "X"\n', ("'X' twice, for rule and for title", "keep one")),
        ('[alerts]\nrule = "x"\nignore = ["x"]\n', ("both uses and ignores", "ignore")),
        ('[alerts]\nignore = "x"\n', ("not a list of names", "ignore = [")),
        ('alerts = "x"\n', ("not a table", "write [alerts]")),
        ("[alerts\n", ("not valid TOML", "[alerts]")),
    ],
)
def test_a_mapping_with_a_mistake_says_where_and_what(tmp_path, text, parts):
    message = refused(lambda: mapping_of(tmp_path, text))
    assert "mapping.toml" in message
    for part in parts:
        assert part.casefold() in message.casefold()


def test_a_mapping_that_does_not_exist(tmp_path):
    assert "does not exist" in refused(lambda: read_mapping(tmp_path / "none.toml"))


def test_two_mappings_on_one_column_by_different_spellings(tmp_path):
    mapping = Mapping(columns={"alerts": {"rule": "check", "title": " check"}})
    message = refused(lambda: plan("alert_id,raised_at,check", mapping))
    assert "use one column" in message


def test_an_unknown_kind_is_refused(tmp_path, no_warehouse):
    with pytest.raises(HeedError, match="'alert' is no kind"):
        load_file("alert", tmp_path / "a.csv", no_warehouse)  # type: ignore[arg-type]
