"""The limits of an installation, as a value. Imports nothing of ours."""

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """How much an organization may use; the defaults are far beyond one machine. *Source:* control-plane.md 16.4."""

    cpu: int = 10_000
    """Cores of all sandboxes that run."""
    memory: int = 10_000
    """GiB of all sandboxes that run."""
    disk: int = 100_000
    """GiB of all sandboxes that have files."""
    sandbox_cpu: int = 100
    """Cores of one sandbox."""
    sandbox_memory: int = 100
    """GiB of one sandbox."""
    sandbox_disk: int = 1_000
    """GiB of one sandbox."""
    snapshots: int = 1_000
    volumes: int = 10_000


GENEROUS = Limits()


def parse_limits(text: str) -> Limits:
    """`cpu=4,snapshots=10` and the defaults for the rest. Raises `ValueError`."""
    given: dict[str, int] = {}
    known = Limits.__struct_fields__
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = part.partition("=")
        if name.strip() not in known or not number.strip().isdecimal():
            raise ValueError(f"{part!r} is not one of {', '.join(f'{each}=NUMBER' for each in known)}")
        given[name.strip()] = int(number)
    return msgspec.structs.replace(GENEROUS, **given)
