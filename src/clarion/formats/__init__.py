"""How a webhook's body is written: one small module a format, found by name.

Another format is a class with the members of ``Format``, given to ``register`` before it is used.
"""

from clarion.errors import ConfigurationError, InvalidSubscriber
from clarion.formats.format import FORM, JSON, USER_AGENT, Addressee, Format
from clarion.formats.orchest import Orchest
from clarion.formats.standard import Standard

__all__ = ["FORM", "JSON", "USER_AGENT", "Addressee", "Format", "format_named", "formats", "register"]

_formats: dict[str, Format] = {}


def register(format: Format) -> None:
    """Make a format known under its name. Raises ConfigurationError if the name is taken."""
    if format.name in _formats:
        raise ConfigurationError(f"There is a webhook format named {format.name!r} already.")
    _formats[format.name] = format


def formats() -> tuple[Format, ...]:
    """Every known format, by name."""
    return tuple(_formats[name] for name in sorted(_formats))


def format_named(name: str) -> Format:
    """The format of this name. Raises InvalidSubscriber, which lists those there are."""
    try:
        return _formats[name]
    except (KeyError, TypeError):
        known = ", ".join(sorted(_formats))
        raise InvalidSubscriber(f"There is no webhook format {name!r}; there are: {known}.") from None


register(Standard())
register(Orchest())
