"""Settings: what variables and pyproject.toml say, and what is said about wrong ones."""

import sys
from pathlib import Path

import pytest

from clarion.errors import ConfigurationError
from clarion.settings import Settings, import_app, migrations_directory, read_settings


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory without a pyproject.toml, and no variables."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"CLARION_{name.upper()}", raising=False)
    return tmp_path


def test_what_nobody_set_has_a_default_that_works() -> None:
    settings = read_settings()
    assert settings.database_url == "sqlite:///.data/clarion.db"
    assert settings.app == ()
    assert settings.egress.allowed_networks == ()
    assert migrations_directory(settings) is None


def test_lists_are_parted_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLARION_EGRESS_ALLOWED_NETWORKS", "10.0.0.0/8, 127.0.0.0/8,")
    monkeypatch.setenv("CLARION_EGRESS_ALLOWED_HOSTS", "hooks.lan")
    monkeypatch.setenv("CLARION_APP", "shop.events, shop.kinds")
    settings = read_settings()
    assert [str(network) for network in settings.egress.allowed_networks] == ["10.0.0.0/8", "127.0.0.0/8"]
    assert settings.egress.allowed_hosts == {"hooks.lan"}
    assert settings.app == ("shop.events", "shop.kinds")


def test_an_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLARION_LOG_FORMAT", "")
    assert read_settings().log_format == "text"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("DATABASE_URL", "mysql://u:hunter2@h/d", "PostgreSQL and SQLite, not on 'mysql'"),
        ("DATABASE_URL", "nonsense", "sqlite:///path/to/file.db"),
        ("LOG_FORMAT", "xml", "'text' or 'json', not 'xml'"),
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("RELAY_IN_FLIGHT", "0", "greater than or equal to 1"),
        ("RELAY_GRACE", "soon", "valid number"),
        ("EGRESS_ALLOWED_NETWORKS", "10.0.0.0/8,lan", "'lan' is not a network such as 10.0.0.0/8"),
        ("EGRESS_ALLOWED_NETWORKS", "0.0.0.0/0", "would allow everything"),
        ("APP", "shop/events.py", "dotted names such as shop.events"),
        ("BROKER_URL", "http://u:hunter2@localhost", "amqp://"),
    ],
)
def test_a_wrong_setting_names_its_variable_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(f"CLARION_{name}", value)
    with pytest.raises(ConfigurationError) as caught:
        read_settings()
    assert f"CLARION_{name}" in caught.value.message
    assert says in caught.value.message
    assert "hunter2" not in caught.value.message


def test_every_wrong_setting_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLARION_LOG_FORMAT", "xml")
    monkeypatch.setenv("CLARION_RELAY_GRACE", "soon")
    with pytest.raises(ConfigurationError, match=r"CLARION_LOG_FORMAT.*CLARION_RELAY_GRACE"):
        read_settings()


def test_a_checkout_says_it_in_its_pyproject_and_variables_win(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nowhere / "pyproject.toml").write_text('[tool.clarion]\napp = ["shop.events"]\nlog_format = "json"\n')
    assert read_settings().app == ("shop.events",)
    assert read_settings().log_format == "json"
    monkeypatch.setenv("CLARION_APP", "other")
    assert read_settings().app == ("other",)


def test_an_unknown_name_in_pyproject_is_refused(nowhere: Path) -> None:
    (nowhere / "pyproject.toml").write_text('[tool.clarion]\ndatabase = "x"\n')
    with pytest.raises(ConfigurationError, match=r"no setting 'database'; there are database_url, app"):
        read_settings()


def test_passwords_are_not_shown() -> None:
    settings = read_settings(database_url="postgresql://me:hunter2@host/name")
    assert settings.shown_database_url == "postgresql+psycopg://me:***@host/name"


def test_an_app_is_imported_from_the_current_directory(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    package = nowhere / "settled_app"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "events.py").write_text("HERE = True\n")
    (nowhere / "single_app.py").write_text("HERE = True\n")
    import_app(("settled_app.events", "single_app"))
    assert sys.modules["settled_app.events"].HERE
    assert migrations_directory(read_settings(app=("settled_app.events",))) == package / "migrations"
    assert migrations_directory(read_settings(app=("single_app",))) == nowhere / "migrations"
    elsewhere = nowhere / "elsewhere"
    assert migrations_directory(read_settings(app=("single_app",), migrations=elsewhere)) == elsewhere


def test_an_app_that_cannot_be_imported_says_why() -> None:
    with pytest.raises(ConfigurationError, match=r"CLARION_APP: cannot import no_such_app.events: No module"):
        import_app(("no_such_app.events",))
