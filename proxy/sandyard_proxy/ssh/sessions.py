"""Session channels: shells and commands with and without a terminal, and the files of sftp and scp."""

import asyncio
import re
from collections.abc import Mapping
from typing import cast

import asyncssh
from asyncssh.channel import SSHChannel
from asyncssh.stream import SSHReader, SSHServerStreamSession, SSHWriter

from sandyard_daemon.gateway_client import Execution, Exited, GatewayClosed, GatewayRefused, Pty
from sandyard_proxy.ssh.access import Access, Refused
from sandyard_proxy.ssh.channels import Channels, ChannelTask
from sandyard_proxy.ssh.files import SandboxFiles

PIECE = 128 << 10
MAX_SIGNALS = 64
"""Waiting ones; more are dropped."""
MAX_VARIABLES = 128
MAX_VARIABLE_BYTES = 32 << 10
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SCP_SERVER = re.compile(r"scp (-\S+ )*-[a-zA-Z]*[ft]( |$)")
"""What `scp -O` runs at the far end; the gateway does it itself, since few images have the program."""
SIGNALS = frozenset("ABRT ALRM FPE HUP ILL INT KILL PIPE QUIT SEGV TERM USR1 USR2".split())
"""Those with a name of their own. *Source:* RFC 4254, 6.10."""
DEFAULT_SIZE = (80, 24)
FAILED = 255
"""Exit status where nothing could be run; what OpenSSH's client gives for its own errors."""


class Session(SSHServerStreamSession[bytes]):
    """One session channel. The library keeps the streams; what is asked for is the sandbox's."""

    def __init__(self, access: Access, sandbox_id: str, *, variables: Mapping[str, str], channels: Channels) -> None:
        """`variables`: set beside those that the client asks for."""
        super().__init__(self._run, self._make_files, sftp_version=3)
        self._access = access
        self._sandbox_id = sandbox_id
        self._variables = variables
        self._task = ChannelTask(channels)
        self._files: SandboxFiles | None = None
        self._size: tuple[int, int] | None = None
        self._signals: list[str] = []
        self._orders = asyncio.Event()

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> bool:
        """Terminal modes are left to the shell's own."""
        return True

    def exec_requested(self, command: str) -> bool:
        """Anything; the far end of an old `scp` is served here."""
        self._allow_scp = SCP_SERVER.match(command) is not None
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        """Files, and nothing else."""
        return subsystem == "sftp"

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        """Only the newest counts."""
        self._size = (width, height)
        self._orders.set()

    def signal_received(self, signal: str) -> None:
        """Not behind the input: the program may not be reading any."""
        if signal in SIGNALS and len(self._signals) < MAX_SIGNALS:
            self._signals.append(signal)
            self._orders.set()

    def break_received(self, msec: int) -> bool:
        """There is no serial line."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """What runs for it ends."""
        super().connection_lost(exc)
        self._task.lost()
        if self._files is not None:
            self._files.abort()

    def _make_files(self, channel: SSHChannel[bytes]) -> SandboxFiles:
        server_channel = cast("asyncssh.SSHServerChannel[bytes]", channel)
        self._files = SandboxFiles(server_channel, self._access, self._sandbox_id, drain=lambda: self.drain(None))
        return self._files

    async def _run(self, stdin: SSHReader[bytes], stdout: SSHWriter[bytes], stderr: SSHWriter[bytes]) -> None:
        self._task.adopt()
        channel = cast("asyncssh.SSHServerChannel[bytes]", stdin.channel)  # a session's is no other
        try:
            await self._execute(channel, stdin, (stdout, stderr))
        except (Refused, GatewayRefused) as error:
            said = error.message if isinstance(error, GatewayRefused) else str(error)
            _say(channel, stderr, said)
        except GatewayClosed:
            _say(channel, stderr, "The sandbox was stopped, or its daemon was.")
        except (asyncssh.Error, OSError):
            channel.close()  # the client is gone

    async def _execute(
        self,
        channel: "asyncssh.SSHServerChannel[bytes]",
        stdin: SSHReader[bytes],
        outputs: tuple[SSHWriter[bytes], SSHWriter[bytes]],
    ) -> None:
        socket = await self._access.open(self._sandbox_id, "/_daemon/exec")
        try:
            command = channel.get_command()
            execution = await Execution.start(
                socket, command, envs=self._environment(channel), pty=_pty(channel), login=command is None
            )
            feeding = [asyncio.create_task(self._feed(stdin, execution)), asyncio.create_task(self._order(execution))]
            try:
                async for stream, data in execution.outputs():
                    writer = outputs[stream - 1]
                    writer.write(data)
                    await writer.drain()
            finally:
                for task in feeding:
                    task.cancel()
                await asyncio.gather(*feeding, return_exceptions=True)
            if execution.exited is not None:
                _end(channel, execution.exited)
        finally:
            await socket.close()

    async def _feed(self, stdin: SSHReader[bytes], execution: Execution) -> None:
        while data := await stdin.read(PIECE):
            await execution.write(data)
        await execution.end_input()

    async def _order(self, execution: Execution) -> None:
        while True:
            await self._orders.wait()
            self._orders.clear()
            if self._size is not None:
                (cols, rows), self._size = self._size, None
                await execution.resize(*_sensible(cols, rows))
            while self._signals:
                await execution.send_signal(self._signals.pop(0))

    def _environment(self, channel: "asyncssh.SSHServerChannel[bytes]") -> dict[str, str]:
        """The client's variables that have a name and a value that can be set, within bounds, and ours."""
        wanted: dict[str, str] = {}
        size = 0
        for name, value in channel.get_environment_bytes().items():
            text = value.decode("utf-8", "replace").replace("\0", "")
            size += len(name) + len(value)
            if VARIABLE.fullmatch(key := name.decode("utf-8", "replace")) and size <= MAX_VARIABLE_BYTES:
                wanted[key] = text
            if len(wanted) >= MAX_VARIABLES:
                break
        return wanted | dict(self._variables)


def _pty(channel: "asyncssh.SSHServerChannel[bytes]") -> Pty | None:
    term = channel.get_terminal_type()
    if term is None:
        return None
    cols, rows = _sensible(*channel.get_terminal_size()[:2])
    return Pty(cols, rows, term or "xterm-256color")


def _sensible(cols: int, rows: int) -> tuple[int, int]:
    """Clients without a terminal of their own ask for 0 by 0; the daemon takes up to 65535."""
    return min(cols, 1000) or DEFAULT_SIZE[0], min(rows, 1000) or DEFAULT_SIZE[1]


def _end(channel: "asyncssh.SSHServerChannel[bytes]", exited: Exited) -> None:
    name = exited.signal
    if name is None:
        channel.exit(exited.exit_code & 0xFF)
        return
    channel.exit_with_signal(name if name in SIGNALS else f"{name}@openssh.com")


def _say(channel: "asyncssh.SSHServerChannel[bytes]", stderr: SSHWriter[bytes], text: str) -> None:
    """Tell the person, and end as failed. A terminal needs its carriage return."""
    stderr.write(text.encode() + (b"\r\n" if channel.get_terminal_type() is not None else b"\n"))
    channel.exit(FAILED)
