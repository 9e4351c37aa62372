"""The surroundings of user processes: their environment, directories and shell."""

import os
import pwd
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sandyard_daemon.errors import Internal

_OURS = "SANDYARD_"
_PLACES = "/bin:/usr/bin:/usr/local/bin:/sbin:/usr/sbin"


@dataclass(slots=True)
class Environment:
    """What processes started from now on see. `variables` change by `POST /env`; running processes keep theirs."""

    home: str
    work_dir: str
    descriptor_limits: tuple[int, int]
    variables: dict[str, str] = field(default_factory=dict)

    @classmethod
    def inherited(cls, work_dir: str | None, descriptor_limits: tuple[int, int]) -> "Environment":
        """The daemon's own environment without what is only ours."""
        variables = {key: value for key, value in os.environ.items() if not key.startswith(_OURS)}
        home = variables.setdefault("HOME", _home_of_user())
        return cls(home, os.path.abspath(work_dir or os.getcwd()), descriptor_limits, variables)

    def change(self, setting: Mapping[str, str], unsetting: Iterable[str], unset_value_prefix: str) -> None:
        """Unset the names, then every variable whose value begins with the prefix and that is not set, then set."""
        for name in unsetting:
            self.variables.pop(name, None)
        if unset_value_prefix:
            for name, value in list(self.variables.items()):
                if value.startswith(unset_value_prefix) and name not in setting:
                    del self.variables[name]
        self.variables.update(setting)

    def resolve(self, directory: str | None) -> str:
        """A working directory as callers name it: relative to the work directory, which is also the default."""
        return os.path.join(self.work_dir, directory) if directory else self.work_dir

    def shell(self) -> str:
        """bash where there is one, else sh. Raises `Internal` in an image without any."""
        found = self.find("bash") or self.find("sh")
        if found is None:
            raise Internal("this sandbox has neither bash nor sh")
        return found

    def find(self, name: str, envs: Mapping[str, str] | None = None) -> str | None:
        """The path of a program of this name, as `PATH` of `envs` or of the sandbox has it; `None`: there is none."""
        for place in ({**self.variables, **(envs or {})}.get("PATH", "") + ":" + _PLACES).split(":"):
            candidate = os.path.join(place, name)
            if place.startswith("/") and os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
                return candidate
        return None


def _home_of_user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir or "/"
    except KeyError:
        return "/"
