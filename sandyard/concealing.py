"""Values that keep something to themselves: what is printed ends in logs and traces."""

from typing import Any, ClassVar

import msgspec


class Concealing(msgspec.Struct, frozen=True):
    """A value whose `repr`, also that for rich, leaves out the fields that it conceals."""

    concealed: ClassVar[frozenset[str]] = frozenset()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name not in self.concealed]
