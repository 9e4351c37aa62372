"""Everything the runner raises on purpose.

    RunnerError
    ├── RuntimeFailure          the runtime could not do what it was asked
    │   ├── Unsupported         it never can; the message says what to use instead
    │   ├── NotPresent          the sandbox does not exist here
    │   ├── ImageFailure        its image cannot be had
    │   └── DaemonUnreachable   the sandbox runs, and its daemon does not answer
    ├── BundleError             no daemon bundle can be made on this machine
    └── RunnerUnreachable       a runner's own API does not answer (raised by `client`)

Every message is fit for the user's eyes. `code` is stable, messages may change.
"""


class RunnerError(Exception):
    """Base of the tree."""

    code = "RUNNER_ERROR"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RuntimeFailure(RunnerError):
    """The runtime could not do what it was asked; trying again may help where `recoverable`."""

    code = "RUNTIME_FAILURE"

    def __init__(self, message: str, *, recoverable: bool = False) -> None:
        super().__init__(message)
        self.recoverable = recoverable


class Unsupported(RuntimeFailure):
    """This runtime cannot do it, now or later."""

    code = "RUNTIME_UNSUPPORTED"


class NotPresent(RuntimeFailure):
    """The sandbox does not exist in this runtime."""

    code = "SANDBOX_NOT_PRESENT"

    def __init__(self, sandbox_id: str) -> None:
        super().__init__(f"sandbox {sandbox_id} does not exist on this runner")


class ImageFailure(RuntimeFailure):
    """The image of a sandbox cannot be had."""

    code = "IMAGE_FAILURE"


class DaemonUnreachable(RuntimeFailure):
    """The sandbox's daemon does not answer on its door."""

    code = "DAEMON_UNREACHABLE"


class BundleError(RunnerError):
    """The daemon bundle cannot be built from this interpreter."""

    code = "BUNDLE_ERROR"


class RunnerUnreachable(RunnerError):
    """A runner's own API does not answer. Safe to repeat."""

    code = "RUNNER_UNREACHABLE"
