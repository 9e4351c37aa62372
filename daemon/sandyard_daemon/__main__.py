"""The daemon's command line: `--door-dir DIR [--state-dir DIR] [--work-dir DIR] [--] [ENTRYPOINT ARG...]`."""

import sys

# asyncio takes `ssl` only when it is there. The door is a unix socket: 1.3 MB and 10 ms that no sandbox should pay.
sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]

import asyncio  # noqa: E402

from sandyard_daemon.diary import report  # noqa: E402
from sandyard_daemon.service import Arguments, UsageError, parse, serve  # noqa: E402


def main(arguments: list[str]) -> int:
    """Run until SIGTERM or SIGINT. Exit code 2 when it cannot start."""
    try:
        return asyncio.run(_serve(parse(arguments)))
    except (UsageError, OSError) as error:
        report("cannot_start", error=str(error))
        return 2


async def _serve(arguments: Arguments) -> int:
    await serve(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
