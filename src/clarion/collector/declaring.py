"""What to write in an application so that what was refused is taken: a declaration to copy and complete."""

import re
from typing import Final

_TYPES: Final = {
    "boolean": "bool",
    "number": "int",
    "string": 'Literal["...", "other"]',  # never text: only a closed list can be anonymous
    "array": 'list[Literal["...", "other"]]',
    "object": 'dict[Literal["...", "other"], int]',
}
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_TYPE_NAME: Final = re.compile(r"[a-z0-9-]+(:[a-z0-9-]+)+\Z")
_KIND: Final = '''\
class {cls}(Captured, kind="{name}", source="webserver"):
    """..."""

    upkeep = Upkeep(owner="...", since="...", expires=Never("..."), triggers=("...",))
'''


def declaration(event: str, path: str, problem: str, json_type: str) -> str:
    """Python for a refused shape, or the change its declaration needs; empty when none would take it."""
    group, _, inner = path.partition(".")
    name = inner.rpartition(".")[2]
    if problem == "unknown event":
        known = _TYPE_NAME.match(event) is not None
        words = re.split(r"[:-]", event) if known else ["ITS", "NAME"]
        cls = "".join(word.capitalize() for word in words)
        return _KIND.format(cls=cls, name=event if known else "ITS:NAME")
    if problem == "unknown property" and group in ("event_properties", "derived_properties"):
        shown = name if _NAME.match(name) else "its_name"
        kind = _TYPES.get(json_type, "bool | None")
        if group == "derived_properties":
            return f'@measure(purpose="...")\ndef {shown}(self) -> {kind}:\n    """..."""\n'
        return f'{shown}: Mapped[{kind}] = fact(anonymous=True, doc="...", purpose="...")\n'
    if problem == "value not allowed":
        return f'# {path}: list the value that comes, or "other" for all that are not listed\n'
    if problem == "wrong type" and json_type == "null":
        return f"# {path}: add | None to its type\n"
    if problem == "wrong type" and json_type in _TYPES:
        return f"# {path}: Mapped[{_TYPES[json_type]}]\n"
    return ""
