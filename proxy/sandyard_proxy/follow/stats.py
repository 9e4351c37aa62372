"""Counters of everything that is followed through this proxy. A lost byte is a bug with a name (design.md 7.8)."""

import msgspec


class FollowStats(msgspec.Struct):
    """Totals since the proxy began, and followers right now. `bytes_*` count payload bytes."""

    followers: int = 0
    bytes_from_bus: int = 0
    """Offered by the bus, repetitions included."""
    bytes_from_file: int = 0
    bytes_out: int = 0
    gaps_filled: int = 0
    leases_renewed: int = 0
    """Relay requests that broke and were opened again."""
    logs_lost: int = 0

    def as_dict(self) -> dict[str, int]:
        """For `/health`."""
        return msgspec.structs.asdict(self)
