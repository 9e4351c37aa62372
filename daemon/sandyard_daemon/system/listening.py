"""Which TCP ports programs of the sandbox listen on, IPv4 and IPv6, from the kernel's own tables.

The daemon itself listens on a unix socket, so none of them is its own. *Source:* proc(5), `/proc/net/tcp`.
"""

from sandyard_daemon.errors import Internal

_LISTEN = "0A"
_TABLES = ("/proc/self/net/tcp", "/proc/self/net/tcp6")


def listening_ports() -> list[int]:
    """Each port once, ascending. Blocks. Raises `Internal` where the kernel shows no table."""
    found: set[int] = set()
    readable = 0
    for table in _TABLES:
        try:
            with open(table, encoding="ascii") as lines:
                next(lines, None)
                found.update(port for line in lines if (port := _listening(line)) is not None)
                readable += 1
        except FileNotFoundError:
            continue  # a kernel without this family
        except OSError as error:
            raise Internal(f"cannot read {table}: {error.strerror}") from error
    if not readable:
        raise Internal("the kernel shows no table of sockets")
    return sorted(found)


def _listening(line: str) -> int | None:
    words = line.split()
    if len(words) < 4 or words[3] != _LISTEN:
        return None
    return int(words[1].rpartition(":")[2], 16)
