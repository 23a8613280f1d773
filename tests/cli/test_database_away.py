"""A database that is not there is told in one line, whichever command asked for it."""

from __future__ import annotations

import pytest

from citybrain_cli.main import main


@pytest.mark.parametrize("words", [["config", "show", "DSN", "gw-1"], ["config", "history", "DSN", "gw-1"]])
def test_a_database_that_is_away_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["host=/nonexistent dbname=x" if word == "DSN" else word for word in words]
    assert main(["cloud", *arguments]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("citybrain: database: ")
