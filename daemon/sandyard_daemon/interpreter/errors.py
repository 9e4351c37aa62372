"""What goes wrong in a context and is told to its client."""


class WorkerFailed(Exception):
    """No interpreter could be started; the message says why."""


class QueueFull(Exception):
    """Too many executions wait in a context."""
