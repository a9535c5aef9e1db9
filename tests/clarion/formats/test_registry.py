import pytest

from clarion.errors import ConfigurationError, InvalidSubscriber
from clarion.formats import format_named, formats, register
from clarion.formats.standard import Standard


def test_formats_are_found_by_name():
    assert {"orchest", "standard"} <= {format.name for format in formats()}
    assert all(format_named(format.name) is format for format in formats())


@pytest.mark.parametrize("name", ["", "Standard", "nope", None, []])
def test_an_unknown_format_lists_the_known(name):
    with pytest.raises(InvalidSubscriber, match="orchest, standard"):
        format_named(name)


def test_a_name_is_taken_once():
    with pytest.raises(ConfigurationError, match="standard"):
        register(Standard())
