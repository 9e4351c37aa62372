"""The docker runtime: sandboxes as containers of an engine that is already there."""

from sandyard_runner.runtime.docker.opening import engine_answers, open_docker_runtime, remove_everything
from sandyard_runner.runtime.docker.options import DockerOptions

__all__ = ["DockerOptions", "engine_answers", "open_docker_runtime", "remove_everything"]
