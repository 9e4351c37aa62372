"""How each language's code is run: which program of the sandbox, and how the code gets into it."""

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sandyard_daemon import guest
from sandyard_daemon.environment import Environment
from sandyard_daemon.errors import BadRequest, Internal
from sandyard_daemon.execution import Executions, Program
from sandyard_daemon.state import StateDirectory

_NODE_QUESTION = """
const has = (flag) => process.allowedNodeEnvironmentFlags.has(flag)
const types = ['--experimental-transform-types', '--experimental-strip-types'].find(has)
const able = (types !== undefined || process.features.typescript) && process.config.variables.node_use_amaro !== false
const quiet = has('--disable-warning') ? ['--disable-warning=ExperimentalWarning'] : []
console.log(JSON.stringify(able ? [...(types ? [types] : []), ...quiet] : null))
"""
"""Prints the flags with which this Node runs TypeScript, or `null` when it cannot.

Debian's knows the flags and is built without what is behind them (amaro). *Source:* ERR_NO_TYPESCRIPT in Node's errors.
"""
_NODE_SECONDS = 20.0
_ESBUILD = """
esbuild=$1 node=$2 file=$3; shift 3
"$esbuild" "$file" --format=cjs --platform=node --sourcemap=inline --log-level=error --outfile="$file.cjs" || exit
exec "$node" --enable-source-maps "$file.cjs" "$@"
"""
_INSTALL_PYTHON = "install python3 in it, or create the sandbox from a snapshot that has it"
_INSTALL_NODE = "install Node.js in it, or create the sandbox from a snapshot that has it"
_INSTALL_TYPESCRIPT = (
    "install tsx or ts-node (npm install tsx), Node.js 22.6 or later, Deno, Bun, or esbuild beside Node.js in it"
)


class Programs:
    """Finds interpreters and hands them code."""

    def __init__(self, environment: Environment, state: StateDirectory, executions: Executions) -> None:
        self._environment = environment
        self._state = state
        self._executions = executions
        self._node_flags: dict[tuple[str, int], list[str] | None] = {}

    @contextmanager
    def python(self, code: str, arguments: Sequence[str], envs: dict[str, str], charts: int) -> Iterator[Program]:
        """`charts`: the descriptor that the charts it shows are written to. Raises `BadRequest`, `Internal`."""
        python = self._environment.find("python3", envs) or self._environment.find("python", envs)
        if python is None:
            raise BadRequest(f"this sandbox has no python3: {_INSTALL_PYTHON}")
        text = code.encode()
        words = [python, "-u", "-c", guest.source("run"), str(len(text)), str(charts), *arguments]
        with self._file(text + guest.source("charts").encode()) as stdin:
            yield Program(words, None, envs, stdin, (charts,))

    @contextmanager
    def javascript(self, code: str, arguments: Sequence[str], envs: dict[str, str]) -> Iterator[Program]:
        """Raises `BadRequest`, `Internal`."""
        node = self._environment.find("node", envs) or self._environment.find("nodejs", envs)
        if node is None:
            raise BadRequest(f"this sandbox cannot run javascript, it has no node: {_INSTALL_NODE}")
        preload = str(Path(guest.__file__).parent / "argv.cjs")
        with self._file(code.encode()) as stdin:
            yield Program([node, "--require", preload, "-", *arguments], None, envs, stdin)

    async def typescript(self, envs: dict[str, str]) -> list[str]:
        """What to put before the file's name. Raises `BadRequest` where nothing runs TypeScript."""

        def find(name: str) -> str | None:
            return self._find_near(name, envs)

        if tsx := find("tsx"):
            return [tsx]
        if ts_node := find("ts-node"):
            return [ts_node, "--transpile-only", "--compilerOptions", '{"module": "CommonJS"}']
        node = find("node") or find("nodejs")
        if node is not None and (flags := await self._typescript_flags(node)) is not None:
            return [node, *flags]
        if deno := find("deno"):
            return [deno, "run", "--allow-all", "--quiet"]
        if bun := find("bun"):
            return [bun, "run"]
        if node is not None and (esbuild := find("esbuild")):
            return [self._environment.shell(), "-c", _ESBUILD, "sh", esbuild, node]
        raise BadRequest(f"this sandbox cannot run typescript: {_INSTALL_TYPESCRIPT}")

    @contextmanager
    def typescript_file(
        self, runner: list[str], code: str, arguments: Sequence[str], envs: dict[str, str]
    ) -> Iterator[Program]:
        """The code as a file of the work directory, where its imports are looked for. Raises `Internal`."""
        # On the first line, so that lines keep their numbers.
        text = code if code.startswith("#!") else f"process.argv.splice(1, 1); {code}"
        name = f".sandyard-{os.urandom(6).hex()}.ts"
        for path in (os.path.join(self._environment.work_dir, name), f"{self._state.next_name()}.ts"):
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
                break
            except OSError as error:
                problem = error
        else:
            raise Internal(f"cannot write the code to a file: {problem.strerror}")
        try:
            with open(descriptor, "wb") as file:
                file.write(text.encode())
            yield Program([*runner, path, *arguments], None, envs)
        except OSError as error:
            raise Internal(f"cannot write the code to a file: {error.strerror}") from error
        finally:
            for each in (path, f"{path}.cjs"):
                with contextlib.suppress(OSError):
                    os.unlink(each)

    def _find_near(self, name: str, envs: dict[str, str]) -> str | None:
        """A program that the work directory's packages bring, as `npx` looks, else one of `PATH`."""
        directory = Path(self._environment.work_dir)
        for parent in (directory, *directory.parents):
            candidate = parent / "node_modules" / ".bin" / name
            if os.access(candidate, os.X_OK):
                return str(candidate)
        return self._environment.find(name, envs)

    async def _typescript_flags(self, node: str) -> list[str] | None:
        """Asked once of each Node."""
        key = (node, os.stat(node).st_mtime_ns)
        if key not in self._node_flags:
            asked = await self._executions.run_program(Program([node, "-e", _NODE_QUESTION], "/", {}), _NODE_SECONDS)
            try:
                flags = json.loads(bytes(asked.output))
            except ValueError:
                flags = None
            self._node_flags[key] = flags if isinstance(flags, list) else None
        return self._node_flags[key]

    @contextmanager
    def _file(self, content: bytes = b"") -> Iterator[int]:
        """A file without a name, at its beginning. Raises `Internal`."""
        descriptor = nameless_file(self._state)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.lseek(descriptor, 0, os.SEEK_SET)
            yield descriptor
        except OSError as error:
            raise Internal(f"cannot keep the code: {error.strerror}") from error
        finally:
            os.close(descriptor)


def nameless_file(state: StateDirectory) -> int:
    """A descriptor for reading and appending; what it names is gone with its last holder. Raises `Internal`."""
    path = state.next_name()
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_APPEND, stat.S_IRUSR)
        os.unlink(path)
    except OSError as error:
        raise Internal(f"cannot make a file: {error.strerror}") from error
    return descriptor
