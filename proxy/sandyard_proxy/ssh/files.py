"""The files of a sandbox for sftp and scp: every operation is the daemon's, none touches this machine's files."""

import asyncio
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncssh
from asyncssh.constants import (
    FILEXFER_TYPE_BLOCK_DEVICE,
    FILEXFER_TYPE_CHAR_DEVICE,
    FILEXFER_TYPE_DIRECTORY,
    FILEXFER_TYPE_FIFO,
    FILEXFER_TYPE_REGULAR,
    FILEXFER_TYPE_SOCKET,
    FILEXFER_TYPE_SYMLINK,
    FILEXFER_TYPE_UNKNOWN,
)

from sandyard_daemon.gateway_client import FileConversation, GatewayClosed
from sandyard_proxy.ssh.access import Access, Refused

PIECE = 256 << 10
"""Bytes of one read or write at the daemon; a longer read is answered with less, as the protocol allows."""
TYPES = {
    stat.S_IFREG: FILEXFER_TYPE_REGULAR,
    stat.S_IFDIR: FILEXFER_TYPE_DIRECTORY,
    stat.S_IFLNK: FILEXFER_TYPE_SYMLINK,
    stat.S_IFSOCK: FILEXFER_TYPE_SOCKET,
    stat.S_IFCHR: FILEXFER_TYPE_CHAR_DEVICE,
    stat.S_IFBLK: FILEXFER_TYPE_BLOCK_DEVICE,
    stat.S_IFIFO: FILEXFER_TYPE_FIFO,
}
SECOND = 1_000_000_000
Fields = dict[str, Any]


class SandboxFiles(asyncssh.SFTPServer):
    """What the library asks of a file system, by one conversation with the daemon, opened when first needed.

    Methods raise `OSError` and `asyncssh.SFTPError`, both of which clients are told.
    """

    def __init__(
        self,
        channel: "asyncssh.SSHServerChannel[bytes]",
        access: Access,
        sandbox_id: str,
        *,
        drain: Callable[[], Awaitable[None]],
    ) -> None:
        """`drain` waits while the client does not take what it was sent."""
        super().__init__(channel)
        self._access = access
        self._sandbox_id = sandbox_id
        self._drain = drain
        self._opening = asyncio.Lock()
        self._conversation: FileConversation | None = None
        self._over = False

    async def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> int:
        """A handle of the daemon's."""
        reads, writes = pflags & asyncssh.FXF_READ, pflags & asyncssh.FXF_WRITE
        access = "rw" if reads and writes else "w" if writes else "r"
        options: Fields = {
            name: True
            for name, flag in (
                ("create", asyncssh.FXF_CREAT),
                ("truncate", asyncssh.FXF_TRUNC),
                ("exclusive", asyncssh.FXF_EXCL),
                ("append", asyncssh.FXF_APPEND),
            )
            if pflags & flag
        }
        if attrs.permissions is not None:
            options["mode"] = stat.S_IMODE(attrs.permissions)
        return int((await self._ask("open", path=_text(path), access=access, **options))["handle"])

    async def open56(self, path: bytes, desired_access: int, flags: int, attrs: asyncssh.SFTPAttrs) -> int:
        """Only newer versions of the protocol than the one that is spoken have it."""
        raise asyncssh.SFTPOpUnsupported("version 3 of the protocol is spoken")

    async def close(self, file_obj: object) -> None:
        """Of a file."""
        await self._ask("close", handle=file_obj)

    async def read(self, file_obj: object, offset: int, size: int) -> bytes:
        """At the most `PIECE`; nothing at the end."""
        await self._drain()
        return (await self._exchange("read", handle=file_obj, offset=offset, size=min(size, PIECE)))[1]

    async def write(self, file_obj: object, offset: int, data: bytes) -> int:
        """All of it."""
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            await self._exchange("write", piece, handle=file_obj, offset=offset + start)
        return len(data)

    async def lstat(self, path: bytes) -> asyncssh.SFTPAttrs:
        """Of a link itself."""
        return _attributes(await self._ask("lstat", path=_text(path)))

    async def stat(self, path: bytes) -> asyncssh.SFTPAttrs:
        """Of what a link leads to."""
        return _attributes(await self._ask("stat", path=_text(path)))

    async def fstat(self, file_obj: object) -> asyncssh.SFTPAttrs:
        """Of an open file."""
        return _attributes(await self._ask("fstat", handle=file_obj))

    async def setstat(self, path: bytes, attrs: asyncssh.SFTPAttrs) -> None:
        """What `attrs` has."""
        await self._ask("setstat", path=_text(path), **_changes(attrs))

    async def lsetstat(self, path: bytes, attrs: asyncssh.SFTPAttrs) -> None:
        """Of a link itself."""
        await self._ask("setstat", path=_text(path), follow=False, **_changes(attrs))

    async def fsetstat(self, file_obj: object, attrs: asyncssh.SFTPAttrs) -> None:
        """Of an open file."""
        await self._ask("fsetstat", handle=file_obj, **_changes(attrs))

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        """Names with attributes; the directory itself and the one above first."""
        handle = (await self._ask("opendir", path=_text(path)))["handle"]
        try:
            for name in (b".", b".."):
                yield asyncssh.SFTPName(name, attrs=await self.lstat(path.rstrip(b"/") + b"/" + name))
            while entries := (await self._ask("readdir", handle=handle))["entries"]:
                await self._drain()
                for entry in entries:
                    yield asyncssh.SFTPName(_bytes(entry["name"]), attrs=_attributes(entry))
        finally:
            await self._ask("close", handle=handle)

    async def remove(self, path: bytes) -> None:
        """A file or link."""
        await self._ask("remove", path=_text(path))

    async def mkdir(self, path: bytes, attrs: asyncssh.SFTPAttrs) -> None:
        """With the permissions of `attrs`, else what the daemon's mask leaves."""
        mode = {} if attrs.permissions is None else {"mode": stat.S_IMODE(attrs.permissions)}
        await self._ask("mkdir", path=_text(path), **mode)

    async def rmdir(self, path: bytes) -> None:
        """An empty directory."""
        await self._ask("rmdir", path=_text(path))

    async def realpath(self, path: bytes) -> bytes:
        """Without links; relative paths begin at the user's home."""
        return _bytes((await self._ask("realpath", path=_text(path)))["path"])

    async def readlink(self, path: bytes) -> bytes:
        """What a link says."""
        return _bytes((await self._ask("readlink", path=_text(path)))["path"])

    async def rename(self, oldpath: bytes, newpath: bytes) -> None:
        """Never onto something."""
        await self._ask("rename", path=_text(oldpath), to=_text(newpath))

    async def posix_rename(self, oldpath: bytes, newpath: bytes) -> None:
        """In place of what is there."""
        await self._ask("rename", path=_text(oldpath), to=_text(newpath), replace=True)

    async def symlink(self, oldpath: bytes, newpath: bytes) -> None:
        """`newpath` becomes a link that says `oldpath`."""
        await self._ask("symlink", path=_text(newpath), target=_text(oldpath))

    async def link(self, oldpath: bytes, newpath: bytes) -> None:
        """Another name of a file."""
        await self._ask("link", path=_text(oldpath), to=_text(newpath))

    async def statvfs(self, path: bytes) -> asyncssh.SFTPVFSAttrs:
        """Of the file system that holds it."""
        found = await self._ask("statvfs", path=_text(path))
        names = "bsize frsize blocks bfree bavail files ffree favail namemax".split()
        return asyncssh.SFTPVFSAttrs(**{name: found[name] for name in names}, flags=found["flag"])

    async def fstatvfs(self, file_obj: object) -> asyncssh.SFTPVFSAttrs:
        """The daemon asks by path only."""
        raise asyncssh.SFTPOpUnsupported("ask by path")

    async def fsync(self, file_obj: object) -> None:
        """To the disk."""
        await self._ask("fsync", handle=file_obj)

    async def exit(self) -> None:
        """The client is done. It is told that all went well: OpenSSH's `scp` fails without."""
        self._over = True
        if not self.channel.is_closing():
            self.channel.exit(0)
        if self._conversation is not None:
            await self._conversation.close()

    def abort(self) -> None:
        """The client is gone: what waits for the daemon fails."""
        self._over = True
        if self._conversation is not None:
            self._conversation.abort()

    def format_user(self, uid: int | None) -> str:
        """The number: names are the sandbox's own."""
        return "" if uid is None else str(uid)

    def format_group(self, gid: int | None) -> str:
        """The number: names are the sandbox's own."""
        return "" if gid is None else str(gid)

    async def _ask(self, operation: str, **fields: Any) -> Fields:
        return (await self._exchange(operation, **fields))[0]

    async def _exchange(self, operation: str, payload: bytes = b"", **fields: Any) -> tuple[Fields, bytes]:
        try:
            return await (await self._open()).ask(operation, payload, **fields)
        except Refused as error:
            raise asyncssh.SFTPFailure(str(error)) from error
        except GatewayClosed as error:
            raise asyncssh.SFTPConnectionLost("the sandbox was stopped, or its daemon was") from error

    async def _open(self) -> FileConversation:
        async with self._opening:
            if self._over:
                raise asyncssh.SFTPConnectionLost("the conversation is over")
            if self._conversation is None:
                conversation = FileConversation(await self._access.open(self._sandbox_id, "/_daemon/fs"))
                if self._over:
                    conversation.abort()
                self._conversation = conversation
            return self._conversation


def _text(path: bytes) -> str:
    """As the daemon's JSON has it: bytes that are no text survive as lone surrogates."""
    return path.decode("utf-8", "surrogateescape")


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _attributes(found: Fields) -> asyncssh.SFTPAttrs:
    atime, mtime = found["atime_ns"], found["mtime_ns"]
    return asyncssh.SFTPAttrs(
        type=TYPES.get(stat.S_IFMT(found["mode"]), FILEXFER_TYPE_UNKNOWN),
        size=found["size"],
        uid=found["uid"],
        gid=found["gid"],
        permissions=found["mode"],
        atime=max(0, atime // SECOND),
        atime_ns=atime % SECOND,
        mtime=max(0, mtime // SECOND),
        mtime_ns=mtime % SECOND,
        nlink=found["nlink"],
    )


def _changes(attrs: asyncssh.SFTPAttrs) -> Fields:
    """The fields of `setstat` for what a client wants changed."""
    changes: Fields = {"size": attrs.size, "uid": attrs.uid, "gid": attrs.gid}
    if attrs.permissions is not None:
        changes["mode"] = stat.S_IMODE(attrs.permissions)
    if attrs.mtime is not None:
        changes["mtime_ns"] = attrs.mtime * SECOND + (attrs.mtime_ns or 0)
    if attrs.atime is not None:
        changes["atime_ns"] = attrs.atime * SECOND + (attrs.atime_ns or 0)
    return {name: value for name, value in changes.items() if value is not None}
