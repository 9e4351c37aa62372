"""The daemon bundle: the daemon with an interpreter, a standard library and a C library of its own, for any image.

Built once from the interpreter that runs Sandyard and kept under a hash of its content, which is not taken again while
no file's size or time has changed:

    bin/python3                      the interpreter
    lib/                             the dynamic loader and every shared library that is needed
    lib/pythonX.Y/                   the standard library as bytecode, with the daemon and its packages beside it
    lib/pythonX.Y/lib-dynload/       extension modules

It is started through its own loader, so that nothing of the image it runs in is used.
"""

import fcntl
import hashlib
import importlib.util
import os
import platform
import py_compile
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from sandyard_runner.errors import BundleError

LAYOUT_VERSION = "1"
"""Part of the hash: changes when the same files would be arranged or started differently."""
PACKAGES = ("sandyard_daemon", "h11", "wsproto")
"""What travels besides the standard library; those that are not installed are left out, but for the first."""
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "amd64": "amd64", "arm64": "arm64"}

KNOWN = "known"
"""Beside the bundles: the stamp of the files that one was built from last, and their digest."""

_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
_LIB = sys.platlibdir
_STDLIB = f"{_LIB}/python{_VERSION}"

# Never needed inside a sandbox, and half of the library's size. `_hashlib` goes too: hashlib and hmac do without, and
# with it they would load OpenSSL, which travels for `telemetry/tls.py` alone (docs/decisions/0007).
_LEFT_OUT_MODULES = frozenset(
    """__pycache__ _pyrepl antigravity compileall ctypes.test curses dbm dist-packages distutils ensurepip idlelib
    imaplib lib-dynload lib2to3 mailbox nntplib pdb poplib pydoc pydoc_data site-packages sitecustomize smtpd smtplib
    sqlite3 telnetlib test this tkinter turtle turtledemo unittest usercustomize venv webbrowser wsgiref
    xmlrpc""".split()
)
_LEFT_OUT_MODULE = re.compile(r"^(config-|_sysconfigdata|_distutils_)")
_LEFT_OUT_EXTENSION = re.compile(
    r"^(_hashlib|_sqlite3|_tkinter|_curses|_curses_panel|_dbm|_gdbm|_crypt|readline|nis|ossaudiodev|audioop|spwd|xx"
    r"|_codecs_(cn|hk|iso2022|jp|kr|tw)|_test|_ctypes_test|_xx|_lsprof|_uuid|_remote_debugging|_zstd)"
)
_LIBRARY_LINE = re.compile(r"^\s*(\S+) => (/\S+)")
_LOADER_TIMEOUT_SECONDS = 20


class Bundle(msgspec.Struct, frozen=True):
    """A finished bundle on disk."""

    path: Path
    digest: str
    """Hexadecimal, of everything in it."""
    arch: str
    """`amd64` or `arm64`."""
    loader: str
    """Path of the dynamic loader inside the bundle."""

    def command(self, mount_point: str, *daemon_args: str) -> list[str]:
        """The command line that starts the daemon where the bundle is mounted at `mount_point`."""
        return [*self.python(mount_point), f"{mount_point}/{_STDLIB}/sandyard_daemon/__main__.pyc", *daemon_args]

    def python(self, mount_point: str) -> list[str]:
        """The command line of the bundle's isolated interpreter, to be followed by its arguments."""
        return [
            f"{mount_point}/{self.loader}",
            "--library-path",
            f"{mount_point}/{_LIB}",
            f"{mount_point}/bin/python3",
            "-I",
            "-S",
            "-X",
            "utf8",
        ]


class _Entry(msgspec.Struct, frozen=True):
    """One file of the bundle: where it goes, and what it is made from."""

    target: str
    source: str
    """A path. Every start asks for all of them, and objects for six hundred paths cost as much as the files' times."""
    is_python: bool = False
    is_executable: bool = False


def ensure_bundle(directory: Path) -> Bundle:
    """The bundle for this machine under `directory`, built if it is not there. Blocks, also while another builds it.

    Raises `BundleError` where the interpreter cannot be bundled (not Linux, statically linked).
    """
    arch = ARCHITECTURES.get(platform.machine().lower())
    if sys.platform != "linux" or arch is None:
        raise BundleError(
            f"a daemon bundle is made on Linux for amd64 or arm64, not on {sys.platform} {platform.machine()};"
            " take it from Sandyard's own image"
        )
    loader = _loader_of(_interpreter())
    entries = sorted(_entries(loader), key=lambda entry: entry.target)
    stamp = _stamp(entries)

    def bundle(digest: str) -> Bundle:
        return Bundle(directory / f"{digest}-{arch}", digest, arch, f"{_LIB}/{loader.name}")

    known = _recall(directory, stamp)
    if known is not None and bundle(known).path.is_dir():
        return bundle(known)
    directory.mkdir(parents=True, exist_ok=True)
    with _alone(directory):
        made = bundle(_recall(directory, stamp) or _digest(entries))
        if not made.path.is_dir():
            _build(made.path, entries)
        _remember(directory, stamp, made.digest)
    return made


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One process at a time."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _entries(loader: Path) -> Iterator[_Entry]:
    interpreter = _interpreter()
    extensions = list(_extensions())
    yield _Entry("bin/python3", str(interpreter), is_executable=True)
    yield _Entry(f"{_LIB}/{loader.name}", str(loader), is_executable=True)
    for extension in extensions:
        yield _Entry(f"{_STDLIB}/lib-dynload/{extension.name}", str(extension))
    for name, library in _libraries(loader, interpreter, extensions).items():
        yield _Entry(f"{_LIB}/{name}", str(library))
    yield from _stdlib_modules()
    for package in PACKAGES:
        yield from _package_modules(package)


def _interpreter() -> Path:
    """The real executable: that of the installation, not a virtual environment's link."""
    return Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))


def _stdlib_directory() -> Path:
    return Path(os.path.realpath(os.__file__)).parent


def _extensions() -> Iterator[Path]:
    for path in (_stdlib_directory() / "lib-dynload").glob("*.so"):
        if not _LEFT_OUT_EXTENSION.match(path.name):
            yield path


def _stdlib_modules() -> Iterator[_Entry]:
    root = str(_stdlib_directory())
    for folder, folders, names in os.walk(root):
        if folder == root:
            folders[:], names[:] = filter(_is_wanted, folders), filter(_is_wanted, names)
        folders[:] = [name for name in folders if name not in ("test", "__pycache__")]
        for name in names:
            if name.endswith(".py"):
                path = f"{folder}/{name}"
                yield _Entry(f"{_STDLIB}{path.removeprefix(root)}c", path, is_python=True)


def _is_wanted(top: str) -> bool:
    return top.removesuffix(".py") not in _LEFT_OUT_MODULES and not _LEFT_OUT_MODULE.match(top)


def _package_modules(package: str) -> Iterator[_Entry]:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        if package == PACKAGES[0]:
            raise BundleError(f"the package {package} is not installed")
        return
    root = spec.submodule_search_locations[0]
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in ("tests", "__pycache__")]
        inside = folder.removeprefix(root)
        is_guest = f"{inside}/".startswith("/guest/")
        for name in names:
            target, path = f"{_STDLIB}/{package}{inside}/{name}", f"{folder}/{name}"
            if is_guest and name != "__init__.py" and name.endswith((".py", ".cjs")):
                # For the sandbox's own interpreters, which cannot read our bytecode.
                yield _Entry(target, path)
            elif name.endswith(".py"):
                yield _Entry(f"{target}c", path, is_python=True)


def _loader_of(executable: Path) -> Path:
    """The dynamic loader an ELF file names (`PT_INTERP`). *Source:* elf(5). Raises `BundleError`."""
    with executable.open("rb") as file:
        header = file.read(64)
        if header[:5] != b"\x7fELF\x02":
            raise BundleError(f"{executable} is not a 64-bit ELF program")
        program_headers = struct.unpack_from("<Q", header, 32)[0]
        entry_size, count = struct.unpack_from("<HH", header, 54)
        for index in range(count):
            file.seek(program_headers + index * entry_size)
            entry = file.read(entry_size)
            kind = struct.unpack_from("<I", entry)[0]
            if kind == 3:  # PT_INTERP
                offset, _, _, size = struct.unpack_from("<QQQQ", entry, 8)
                file.seek(offset)
                return Path(os.fsdecode(file.read(size).rstrip(b"\0")))
    raise BundleError(f"{executable} is statically linked: no loader to take along")


def _libraries(loader: Path, interpreter: Path, extensions: Sequence[Path]) -> dict[str, Path]:
    """`{soname: file}` of everything the binaries need, as the loader itself resolves it."""
    found: dict[str, Path] = {}
    for line in _listed(loader, interpreter, extensions).splitlines():
        match = _LIBRARY_LINE.match(line)
        # musl's lists what it was told to load beforehand as well.
        if match and match[1] != loader.name and Path(match[2]) not in extensions:
            found[Path(match[1]).name] = Path(match[2])
    libc = found.get("libc.so.6")
    if libc is not None:
        # Before glibc 2.34 name lookups in /etc/passwd and /etc/hosts were modules loaded at run time.
        for name in ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"):
            if (libc.parent / name).exists():
                found[name] = libc.parent / name
    return found


def _listed(loader: Path, interpreter: Path, extensions: Sequence[Path]) -> str:
    """What the loader lists for the binaries: in one go where it can, since every start asks."""

    def ask(*arguments: str | Path) -> str | None:
        done = subprocess.run(  # noqa: S603  the system's own loader
            [loader, *arguments], capture_output=True, text=True, timeout=_LOADER_TIMEOUT_SECONDS, check=False
        )
        return done.stdout if done.returncode == 0 else None

    preloaded = [str(extension) for extension in extensions]
    if not any(character in path for path in preloaded for character in " :"):  # which separate them
        listed = ask("--preload", ":".join(preloaded), "--list", interpreter)  # glibc 2.30 and later
        if listed is not None:
            return listed
    return "".join(ask("--list", binary) or "" for binary in (interpreter, *extensions))


def _digest(entries: Sequence[_Entry]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{LAYOUT_VERSION} {sys.version}".encode())
    for entry in entries:
        content = Path(entry.source).read_bytes()
        digest.update(f"\0{entry.target}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _stamp(entries: Sequence[_Entry]) -> str:
    """What changes when any file is another one, by name, size and time: to read them all takes ten times as long."""
    stamp = hashlib.blake2b(f"{LAYOUT_VERSION} {sys.version}".encode(), digest_size=16)
    for entry in entries:
        status = os.stat(entry.source)
        stamp.update(f"\0{entry.target}\0{entry.source}\0{status.st_size}\0{status.st_mtime_ns}".encode())
    return stamp.hexdigest()


def _recall(directory: Path, stamp: str) -> str | None:
    """The digest of the files with this stamp, where it is known."""
    with suppress(OSError):
        known, _, digest = (directory / KNOWN).read_text().partition(" ")
        if known == stamp and re.fullmatch("[0-9a-f]{32}", digest):
            return digest
    return None


def _remember(directory: Path, stamp: str, digest: str) -> None:
    """For `_recall`. To be called by one process at a time."""
    with suppress(OSError):  # the bundle may be in a place that only an image's build could write to
        fresh = directory / f"{KNOWN}.new"
        fresh.write_text(f"{stamp} {digest}")
        fresh.replace(directory / KNOWN)


def _build(destination: Path, entries: Sequence[_Entry]) -> None:
    """Fill a directory beside `destination` and rename it; a bundle is there whole or not at all."""
    with tempfile.TemporaryDirectory(prefix=".building-", dir=destination.parent) as scratch:
        root = Path(scratch) / "bundle"
        for entry in entries:
            target = root / entry.target
            _make_directories(root, target.parent)
            if entry.is_python:
                _write_bytecode(Path(entry.source), target)
            else:
                shutil.copyfile(entry.source, target)
            # Whatever the umask: the daemon may run as any user of the sandbox.
            target.chmod(0o755 if entry.is_executable else 0o644)
        root.rename(destination)


def _make_directories(root: Path, directory: Path) -> None:
    if directory.is_dir():
        return
    if directory != root:
        _make_directories(root, directory.parent)
    directory.mkdir()
    directory.chmod(0o755)


def _write_bytecode(source: Path, target: Path) -> None:
    cached = _cached_bytecode(source)
    if cached is not None:
        target.write_bytes(cached)
        return
    py_compile.compile(
        str(source),
        cfile=str(target),
        dfile=f"{source.parent.name}/{source.name}",
        doraise=True,
        optimize=0,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def _cached_bytecode(source: Path) -> bytes | None:
    """What the interpreter has compiled already, as an unchecked hash-based pyc (PEP 552): seconds saved."""
    cached = Path(importlib.util.cache_from_source(str(source), optimization=""))
    try:
        content = cached.read_bytes()
        status = source.stat()
    except OSError:
        return None
    expected = struct.pack("<4sIII", importlib.util.MAGIC_NUMBER, 0, int(status.st_mtime) & 0xFFFFFFFF, status.st_size)
    if content[:16] != expected:
        return None
    return struct.pack("<4sI8s", importlib.util.MAGIC_NUMBER, 1, importlib.util.source_hash(b"")) + content[16:]


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m sandyard_runner.daemon_bundle DEST`: build into DEST and print the path."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) != 1:
        sys.stderr.write("usage: python -m sandyard_runner.daemon_bundle DESTINATION\n")
        return 2
    try:
        bundle = ensure_bundle(Path(given[0]))
    except BundleError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    sys.stdout.write(f"{bundle.path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
