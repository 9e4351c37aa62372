"""Loading nftables scripts; one script is one transaction."""

import asyncio
from collections.abc import Sequence

from sandyard_runner.errors import RuntimeFailure

NFT_SECONDS = 10.0


async def run_nft(script: str, *, inside: Sequence[str] = ()) -> None:
    """Load a script, under the command line `inside` where given, such as `nsenter`. Raises `RuntimeFailure`."""
    process = await asyncio.create_subprocess_exec(
        *(*inside, "nft", "-f", "-"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(NFT_SECONDS):
            _, said = await process.communicate(script.encode())
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise RuntimeFailure("cannot set the network rules: nft does not end") from error
    if process.returncode:
        raise RuntimeFailure(f"cannot set the network rules: {said.decode(errors='replace').strip()}")
