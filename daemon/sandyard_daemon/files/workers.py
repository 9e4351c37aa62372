"""The few threads that do blocking file work, and long work cut into short steps."""

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator
from functools import partial
from typing import Generic, TypeVar

from sandyard_daemon.diary import report

THREADS = 4
STEP_SECONDS = 0.05
"""Of a thread for one step: so long do others wait at the most, and a client's end is noticed that late."""
STEP_BYTES = 512 << 10
SILENCE_SECONDS = 5.0
"""OkHttp, and so the Java SDK, gives up after 10 s without a byte; white space is legal between JSON's parts."""
CLOSE_SECONDS = 2.0

Result = TypeVar("Result")
Steps = Generator[bytes | None, None, Result]
"""Work that may be left at each `yield`; what it yields is output. Its clean-up stands in a `finally`."""


class Workers:
    """Runs functions off the event loop, `THREADS` at a time. After `close` they run where they are asked for."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._open = 0
        self._count_lock = threading.Lock()
        self._closed = False

    async def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """The function's result, or what it raised. It runs on when its caller is cancelled."""
        if self._closed:
            return function(*arguments)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def work() -> None:
            try:
                result = function(*arguments)
            except Exception as error:
                _tell(loop, future, error=error)
            else:
                _tell(loop, future, result=result)

        self.post(work)
        return await future

    def post(self, work: Callable[[], object]) -> None:
        """Run it some time soon; nobody waits for it. Its errors are written down."""
        if self._closed:
            _attempt(work)
            return
        with self._count_lock:
            all_busy = self._open >= len(self._threads)
            self._open += 1
        if all_busy and len(self._threads) < THREADS:
            # Daemonic: a thread that hangs in a dead file system must not keep the process from ending.
            thread = threading.Thread(target=self._serve, daemon=True, name="files")
            self._threads.append(thread)
            thread.start()
        self._waiting.put(lambda: _attempt(work))

    async def drive(self, steps: Steps[Result]) -> Result:
        """Take the steps to their end and give what they return. Cancelling ends them at the next one."""
        stepper = _Stepper(steps)
        try:
            while not stepper.is_done:
                await self.run(stepper.advance)
            return stepper.result
        finally:
            if not stepper.is_done:
                self.post(stepper.end)

    async def begin(self, steps: Steps[object]) -> AsyncIterator[bytes]:
        """The output of the steps, after the first of them was taken: what that raises is raised here."""
        stepper = _Stepper(steps)
        try:
            first = await self.run(stepper.advance)
        except BaseException:
            self.post(stepper.end)
            raise
        return self._rest(stepper, first)

    async def _rest(self, stepper: "_Stepper[object]", first: bytes) -> AsyncIterator[bytes]:
        try:
            if first:
                yield first
            said = time.monotonic()
            while not stepper.is_done:
                piece = await self.run(stepper.advance)
                if not piece and time.monotonic() - said > SILENCE_SECONDS:
                    piece = b" "
                if piece:
                    yield piece
                    said = time.monotonic()
        finally:
            if not stepper.is_done:
                self.post(stepper.end)

    async def close(self) -> None:
        """Let what runs end, for two seconds."""
        self._closed = True
        loop = asyncio.get_running_loop()
        ends = [loop.create_future() for _ in self._threads]
        for end in ends:
            self._waiting.put(partial(_tell, loop, end))
            self._waiting.put(None)
        if ends:
            await asyncio.wait(ends, timeout=CLOSE_SECONDS)

    def _serve(self) -> None:
        while (work := self._waiting.get()) is not None:
            work()
            with self._count_lock:
                self._open -= 1


class _Stepper(Generic[Result]):
    """Steps that only one thread takes at a time."""

    def __init__(self, steps: Steps[Result]) -> None:
        self._steps = steps
        self._lock = threading.Lock()
        self.is_done = False
        self.result: Result

    def advance(self) -> bytes:
        """Go on for a moment; what was yielded."""
        pieces: list[bytes] = []
        size = 0
        deadline = time.monotonic() + STEP_SECONDS
        with self._lock:
            try:
                while size < STEP_BYTES and time.monotonic() < deadline:
                    if piece := next(self._steps):
                        pieces.append(piece)
                        size += len(piece)
            except StopIteration as stop:
                self.result, self.is_done = stop.value, True
        return b"".join(pieces)

    def end(self) -> None:
        """Leave them where they are, with their clean-up."""
        with self._lock:
            self._steps.close()


def _attempt(work: Callable[[], object]) -> None:
    try:
        work()
    except Exception as error:
        report("file_work_failed", error=repr(error))


def _tell(
    loop: asyncio.AbstractEventLoop,
    future: "asyncio.Future[Result]",
    *,
    result: Result | None = None,
    error: Exception | None = None,
) -> None:
    def settle() -> None:
        if future.done():  # its caller was cancelled
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # `None` only where that is the result

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the loop has ended; so has whoever waited
        return
