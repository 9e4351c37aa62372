"""Runs pieces of code one after the other in one namespace: `python3 -c TEXT REPLIES STDOUT STDERR`.

Requests come on standard input as lines of JSON, replies go to REPLIES, a path that is opened here. Neither descriptor
is inherited by what user code starts. Standard output and error become the paths STDOUT and STDERR, as descriptors, so
that subprocesses are heard; standard input becomes empty.
"""

import fcntl
import io
import json
import os
import signal
import sys
import types

LIMIT = 64 << 10
"""Characters of one part of an error."""


class Worker:
    """The conversation with the daemon, and the namespace that user code runs in."""

    def __init__(self):
        self.process = os.getpid()
        signal.signal(signal.SIGINT, spare)
        self.requests = os.fdopen(keep(0), "rb")
        self.replies = keep(os.open(sys.argv[1], os.O_WRONLY))
        for path, place in ((os.devnull, 0), (sys.argv[2], 1), (sys.argv[3], 2)):
            opened = os.open(path, os.O_WRONLY if place else os.O_RDONLY)
            if opened != place:
                os.dup2(opened, place)
                os.close(opened)
            os.set_inheritable(place, True)
        for name in ("stdout", "stderr"):
            setattr(sys, name, by_lines(getattr(sys, name)))
        sys.argv[:] = [""]
        module = types.ModuleType("__main__")
        self.scope = module.__dict__
        self.scope["__builtins__"] = sys.modules["builtins"]
        sys.modules["__main__"] = module

    def serve(self):
        """Until the daemon closes our standard input."""
        self.reply({"ready": self.process})
        for line in iter(self.requests.readline, b""):
            request = json.loads(line.decode())
            try:
                error = self.run(request["code"], request["envs"])
            except KeyboardInterrupt as problem:  # it came between the code's end and ours
                error = described(problem)
            self.reply({"done": request["number"], "error": error})

    def reply(self, value):
        """One line."""
        data = json.dumps(value).encode() + b"\n"
        while data:
            data = data[os.write(self.replies, data) :]

    def run(self, code, variables):
        """An error as a dictionary, or `None`. Raises `KeyboardInterrupt` that came a moment too late."""
        former = {name: os.environ.get(name) for name in variables}
        error = None
        try:
            os.environ.update(variables)
            try:
                program = compile(code, "<stdin>", "exec", dont_inherit=True)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                exec(program, self.scope)  # noqa: S102  the purpose
            except SystemExit as problem:
                self.leave_child(problem.code)
            except BaseException as problem:
                signal.signal(signal.SIGINT, spare)
                error = described(problem)
            signal.signal(signal.SIGINT, spare)
            self.leave_child(error)
        finally:
            restore(former)
            flush()
        return error

    def leave_child(self, result):
        """A process that user code forked ends with its code, and is not a second worker."""
        if os.getpid() == self.process:
            return
        if isinstance(result, dict):
            sys.stderr.write(result["traceback"])
        flush()
        os._exit(result if isinstance(result, int) else int(result is not None))


def keep(descriptor):
    """A copy far from the numbers that user code expects to be free, and not inherited."""
    kept = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 100)
    os.close(descriptor)
    return kept


def by_lines(stream):
    """The stream, written at each line's end, as on a terminal: a print is one message to the client, and comes now."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(line_buffering=True)
        return stream
    encoding, errors = stream.encoding, stream.errors
    return io.TextIOWrapper(stream.detach(), encoding, errors, line_buffering=True)


def spare(number, frame):
    """There is nothing to interrupt between two pieces of code."""


def described(problem):
    """An exception as clients take it, from the first frame that is the user's."""
    import traceback

    try:
        value = str(problem)
    except Exception:
        value = "<the exception cannot be shown>"
    trace = problem.__traceback__.tb_next if problem.__traceback__ is not None else None
    try:
        text = "".join(traceback.format_exception(type(problem), problem.with_traceback(trace), trace))
    except Exception:
        text = "%s: %s\n" % (type(problem).__name__, value)
    if len(text) > LIMIT:
        text = text[: LIMIT // 2] + "\n[...]\n" + text[-LIMIT // 2 :]
    return {
        "name": type(problem).__name__,
        "value": value[:LIMIT],
        "traceback": text,
        "interrupted": isinstance(problem, KeyboardInterrupt),
    }


def restore(variables):
    """Give environment variables their former values back."""
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def flush():
    """What user code wrote is on its way before our reply is."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass


if __name__ == "__main__":
    Worker().serve()
