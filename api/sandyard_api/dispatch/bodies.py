"""The bodies of the internal API that are lists or maps of the wire's messages."""

from datetime import datetime

import msgspec

from sandyard_api.jobs.wire import CommandRecord, ImageJob, Job, Observation, SessionRecord


class Observations(msgspec.Struct):
    """`POST /internal/observations`."""

    observations: list[Observation]


class Records(msgspec.Struct):
    """`POST /internal/sessions`."""

    sessions: list[SessionRecord] = []
    commands: list[CommandRecord] = []


class Check(msgspec.Struct):
    """`POST /internal/keys/check`."""

    key: str


class Activity(msgspec.Struct):
    """`POST /internal/activity`."""

    sandboxes: dict[str, datetime]


class Claimed(msgspec.Struct):
    """The answer of `POST /internal/jobs/claim`."""

    jobs: list[Job] = []
    image_jobs: list[ImageJob] = []
