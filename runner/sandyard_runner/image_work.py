"""Images that jobs need: made ready with what they say written to the build log, and removed when nobody wants them."""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

import structlog

from sandyard_api.jobs.client import ControlPlaneError, ControlPlaneUnreachable, RunnerControlPlane, UnknownContext
from sandyard_api.jobs.wire import ImageJob, ImageProgress, ImageResult, ImageSource, ImageStep
from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.contract import Build, ImageFacts, Runtime

MAX_LOG_BYTES = 16 << 20
"""What one attempt may write to the log; the rest is left out, and said to be."""
MAX_BATCH = 512

log = structlog.get_logger(__name__)


class ImageWork:
    """Makes images ready and removes them."""

    def __init__(self, runtime: Runtime, control_plane: RunnerControlPlane) -> None:
        self._runtime = runtime
        self._control_plane = control_plane

    async def act(self, job: ImageJob) -> ImageResult:
        """Do an image job; what goes wrong is in its result. Raises `LeaseVoid`."""
        step = ImageStep.BUILDING if job.source.dockerfile is not None else ImageStep.PULLING
        with contextlib.suppress(ControlPlaneUnreachable):
            await self._control_plane.progress_image(job.id, ImageProgress(job.lease, step))
        try:
            facts = await self.prepare(job.id, job.source)
        except RuntimeFailure as failure:
            return ImageResult(job.lease, ok=False, reason=failure.message)
        except Exception as error:  # a loop that serves every image must survive one job
            log.exception("job_broke", kind="image")
            reason = f"the runner could not do this: {type(error).__name__}: {error}"
            return ImageResult(job.lease, ok=False, reason=reason)
        return ImageResult(job.lease, ok=True, size_bytes=facts.size_bytes, entrypoint=tuple(facts.entrypoint) or None)

    async def prepare(self, subject_id: str, source: ImageSource) -> ImageFacts:
        """Make the image usable; the log of that sandbox or snapshot is written, and its end is, too.

        Raises `RuntimeFailure`, whose text is the last line of the log.
        """
        lines: asyncio.Queue[str | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def report(line: str) -> None:
            loop.call_soon_threadsafe(lines.put_nowait, line)  # a runtime may pull in a thread

        writing = asyncio.create_task(self._write_log(subject_id, lines))
        try:
            return await self._runtime.ensure_image(
                source.reference, report, build=self._build(source), logins=source.logins
            )
        except RuntimeFailure as failure:
            report(failure.message)
            raise
        finally:
            loop.call_soon(lines.put_nowait, None)
            await writing

    async def remove_unwanted(self) -> None:
        """Remove builds that nothing can be made from any more. Raises `ControlPlaneError` and `RuntimeFailure`."""
        # First what is there: an image that appears meanwhile is not in the list.
        present = await self._runtime.built_images()
        if not present:
            return
        for image in sorted(set(present) - set(await self._control_plane.wanted_images())):
            log.info("image_removed", image=image)
            await self._runtime.remove_build(image)

    def _build(self, source: ImageSource) -> Build | None:
        if source.dockerfile is None:
            return None

        async def fetch(folder: Path) -> Sequence[Path]:
            paths = []
            for number, context_hash in enumerate(source.context_hashes):
                path = folder / f"context-{number}.tar"
                try:
                    await self._control_plane.fetch_context(source.organization_id, context_hash, path)
                except UnknownContext as error:
                    raise RuntimeFailure(str(error)) from error
                except ControlPlaneError as error:
                    raise RuntimeFailure(f"cannot fetch a build context: {error}", recoverable=True) from error
                paths.append(path)
            return paths

        return Build(source.dockerfile, fetch)

    async def _write_log(self, subject_id: str, lines: "asyncio.Queue[str | None]") -> None:
        is_over, size = False, 0
        while not is_over:
            batch = [await lines.get()]
            while not lines.empty() and len(batch) < MAX_BATCH:
                batch.append(lines.get_nowait())
            is_over = None in batch
            text = "".join(f"{line}\n" for line in batch if line is not None)
            if size > MAX_LOG_BYTES and not is_over:
                continue
            size += len(text)
            if size > MAX_LOG_BYTES and not is_over:
                text = f"{text[:1000]}\n[the log is longer than {MAX_LOG_BYTES >> 20} MiB; what follows is left out]\n"
            if text:
                with contextlib.suppress(ControlPlaneError):  # progress only; the result is told apart
                    await self._control_plane.append_build_log(subject_id, text)
