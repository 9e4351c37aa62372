"""Values that keep something to themselves: what is printed ends in logs and traces."""

from typing import ClassVar

import msgspec


class Concealing(msgspec.Struct, frozen=True):
    """A value whose `repr` leaves out the fields that it conceals."""

    concealed: ClassVar[frozenset[str]] = frozenset()

    def __repr__(self) -> str:
        shown = (name for name in self.__struct_fields__ if name not in self.concealed)
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"
