"""What measures are computed from, and is itself neither stored nor sent; and the shape of a definition."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar, Literal

from clarion.declarations import measure
from orchest.definition import parse
from orchest.shape import Shape, shape_of

Extension = Literal["py", "ipynb", "r", "jl", "sh", "other"]
SHAPE = "What pipelines look like, to know which sizes and features matter."


class Materials:
    """A mixin left of ``Event``: keywords named in ``materials`` are kept beside the event, in memory only.

    So an event can be given a whole pipeline definition and still have no place where it could be stored
    or sent: measures read it, nothing else does, and only while telemetry is on.
    """

    materials: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, verb: str, /, *, occurred_at: datetime | None = None, **values: Any) -> None:
        given = {name: values.pop(name) for name in self.materials if name in values}
        super().__init__(verb, occurred_at=occurred_at, **values)  # type: ignore[call-arg]
        self.__dict__["materials_given"] = given

    def given(self, name: str) -> Any:
        """The material called ``name``. Raises LookupError when it was not given: its measures are null."""
        return self.__dict__["materials_given"][name]

    def shape(self) -> Shape:
        """The shape of the given ``definition``, computed once."""
        given: dict[str, Any] = self.__dict__["materials_given"]
        if "shape" not in given:
            given["shape"] = shape_of(parse(given["definition"]))
        shape: Shape = given["shape"]
        return shape


def shape_count(name: str, doc: str, verbs: Iterable[str] | None = None) -> Any:
    """A measure: one count of the definition's shape, under ``definition``."""

    def count(self: Materials) -> int:
        value: int = getattr(self.shape(), name)
        return value

    count.__doc__ = doc
    return measure(verbs=verbs, key=f"definition.{name}", purpose=SHAPE)(count)


def extension_count(verbs: Iterable[str] | None = None) -> Any:
    """A measure: steps by the extension of their file, from a closed list."""

    def count(self: Materials) -> dict[Extension, int]:
        counts: Mapping[Any, int] = self.shape().step_file_extension_count
        return dict(counts)

    count.__doc__ = "Steps by file extension; one that is not known counts as other."
    return measure(verbs=verbs, key="definition.step_file_extension_count", purpose=SHAPE)(count)
