"""What the hub says of a setting it does not take."""

from __future__ import annotations

import pytest

from hub.config import InvalidSetting, load, marks


def test_the_password_of_a_url_is_not_shown() -> None:
    with pytest.raises(InvalidSetting) as refused:
        load({"redis": "rdis://user:hunter2@db.test:6379/0"}, {})
    assert "hunter2" not in str(refused.value)
    assert str(refused.value) == "--redis got 'rdis://…@db.test:6379/0', takes redis://HOST:PORT/DB"


def test_marks_tell_which_settings_differ_and_not_what_they_are() -> None:
    secret = "postgresql://hub:hunter2@db/hub"
    mine = marks(load({"storage": secret, "data_dir": "one"}, {}))
    other = marks(load({"storage": secret, "data_dir": "two", "shards": "2"}, {}))
    assert [name for name in mine if mine[name] != other[name]] == ["shards"]
    assert "hunter2" not in str(mine)
