"""Settings: a typo or an impossible value is one line that names where it stands."""

from pathlib import Path

import pytest

from dagster_project.errors import HeedError
from dagster_project.settings import PROJECT, Settings, load_settings


def settings_of(text: str, tmp_path: Path) -> Settings:
    file = tmp_path / "heed.toml"
    file.write_text(text)
    return load_settings(file)


def test_the_projects_own_settings_are_the_defaults() -> None:
    assert load_settings(PROJECT / "heed.toml") == Settings()


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("[outcome]\nhorizon_dys = 3", 2, "Perhaps 'horizon_days' is meant"),
        ("\n[outcome]\nhorizon_days = -3", 3, "greater than 0"),
        ("[learn]\nseed = 3", 1, "Perhaps 'learning' is meant"),
        ("[source]\ntime_zone = 'Mars'", 2, "is not a time zone"),
        ("[features]\nkeys = ['rule', 'rule']", 2, "each once"),
        ("[schedule]\nretrain = 'weekly'", 2, "not a cron line"),
        ("[learning]\nminimum_acted = 'fifty'", 2, "valid integer"),
    ],
)
def test_a_wrong_setting_names_its_line(text: str, line: int, said: str, tmp_path: Path) -> None:
    with pytest.raises(HeedError) as raised:
        settings_of(text, tmp_path)
    assert f"heed.toml:{line}:" in str(raised.value)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_not_toml_is_said_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(HeedError, match="line 1"):
        settings_of("horizon = = 3", tmp_path)


def test_a_missing_file_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(HeedError, match="Create it"):
        load_settings(tmp_path / "nowhere.toml")


NUMBERS = [
    f"{section}.{name}"
    for section, field in Settings.model_fields.items()
    for name, value in getattr(field.annotation, "model_fields", {}).items()
    if isinstance(value.default, (int, float)) and not isinstance(value.default, bool)
]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_that_nothing_can_compute_with_is_one_line(number: str, tmp_path: Path) -> None:
    """Counts alone may be as large as they like: then they are merely never reached."""
    section, name = number.split(".")
    for value in ("inf", "-inf", "nan", "1e999", "1e308", "1" + "0" * 400, "99999999999"):
        text = f"[{section}]\n{name} = {value}"
        if name in ("minimum_acted", "minimum_not_acted") and value.isdigit():
            settings_of(text, tmp_path).learning_settings()
            continue
        with pytest.raises(HeedError, match=r"heed\.toml:2:") as refused:
            settings_of(text, tmp_path)
        assert "\n" not in str(refused.value)
