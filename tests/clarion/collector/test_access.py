"""Access tokens have names; browsers stay logged in for a time."""

from pathlib import Path

import pytest

from clarion.collector.access import (
    SESSION_SECONDS,
    AccessToken,
    Sessions,
    make_token,
    read_tokens,
    reader_of,
    revoke_token,
)
from clarion.errors import ConfigurationError, InvalidInput, NotFound
from tests.clarion.collector.test_keys import Ticks

ADA = AccessToken.of("token-of-ada", "ada")


def test_a_token_tells_whose_it_is() -> None:
    tokens = (ADA, AccessToken.of("token-of-grace", "grace"))
    assert [reader_of(one, tokens) for one in ("token-of-ada", "token-of-grace", "", "token")] == [
        "ada",
        "grace",
        None,
        None,
    ]
    assert reader_of("", ()) is None


def test_making_a_token_ends_the_one_of_that_name_only(tmp_path: Path) -> None:
    first, other = make_token(tmp_path, "ada"), make_token(tmp_path, "grace")
    second = make_token(tmp_path, "ada")
    found = read_tokens(tmp_path)
    assert [reader_of(one, found) for one in (first, second, other)] == [None, "ada", "grace"]
    revoke_token(tmp_path, "grace")
    assert [one.name for one in read_tokens(tmp_path)] == ["ada"]
    with pytest.raises(NotFound, match="there are: ada"):
        revoke_token(tmp_path, "grace")
    file = tmp_path / "access-tokens.sha256"
    assert second not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["", "Ada", "a b", "-a", "a" * 41, "a\n"])
def test_a_name_that_cannot_be_used_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput):
        make_token(tmp_path, name)


@pytest.mark.parametrize("text", ["x\n", f"{ADA.digest} ada\n", f"{ADA.digest}  Ada\n", "ä"])
def test_a_broken_file_says_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "access-tokens.sha256").write_text(text)
    with pytest.raises(ConfigurationError, match="SHA-256"):
        read_tokens(tmp_path)


def test_a_session_lasts_until_it_is_over_or_left() -> None:
    clock = Ticks()
    sessions = Sessions((ADA,), clock)
    assert sessions.login("wrong") is None
    one, other = sessions.login("token-of-ada"), sessions.login(" token-of-ada ")
    assert one
    assert other
    assert [sessions.reader(session) for session in (one, other, "", "made-up")] == ["ada", "ada", None, None]
    sessions.logout(one)
    clock.now = SESSION_SECONDS - 1
    assert [sessions.reader(one), sessions.reader(other)] == [None, "ada"]
    clock.now = SESSION_SECONDS
    assert sessions.reader(other) is None


def test_sessions_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clarion.collector.access._MOST_SESSIONS", 3)
    sessions = Sessions((ADA,), Ticks())
    opened = [sessions.login("token-of-ada") or "" for _ in range(5)]
    assert [sessions.reader(one) for one in opened] == [None, None, "ada", "ada", "ada"]
