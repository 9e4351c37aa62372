"""Runs a program that comes on standard input as `__main__`: `python3 -u -c TEXT SIZE DESCRIPTOR [ARGUMENT...]`.

Standard input is the program, SIZE bytes, and then the text of `charts`, which is compiled only when `pyplot` is
imported. Charts are appended to DESCRIPTOR as lines of JSON. Tracebacks begin in the user's code.
"""


def _prepare():
    import os
    import sys

    size, descriptor = int(sys.argv[1]), int(sys.argv[2])
    sys.argv[:] = ["-"] + sys.argv[3:]
    os.set_inheritable(descriptor, False)
    pieces = []
    piece = os.read(0, 1 << 20)
    while piece:
        pieces.append(piece)
        piece = os.read(0, 1 << 20)
    text = b"".join(pieces)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    program, charts = text[:size], text[size:]
    _watch_for_pyplot(charts, descriptor, b"matplotlib" in program or b"pylab" in program)
    return program


def _watch_for_pyplot(charts, descriptor, names_matplotlib):
    import sys

    class Watcher:
        """Lets `charts` at `pyplot` right after it was imported."""

        def find_spec(self, name, path=None, target=None):
            if name != "matplotlib.pyplot" or self not in sys.meta_path:
                return None
            sys.meta_path.remove(self)
            for finder in sys.meta_path:
                find = getattr(finder, "find_spec", None)
                spec = find(name, path, target) if find else None
                if spec is not None:
                    self.follow(spec)
                    return spec
            return None

        def follow(self, spec):
            loader = spec.loader
            execute = loader.exec_module

            def execute_and_watch(module):
                del loader.exec_module
                execute(module)
                try:
                    scope: "dict[str, object]" = {"__name__": "sandyard_charts"}
                    exec(compile(charts, "<charts>", "exec"), scope)  # noqa: S102  our own text
                    install = scope["install"]
                    if callable(install):
                        install(module, descriptor, not names_matplotlib)
                except Exception:
                    pass

            try:
                loader.exec_module = execute_and_watch
            except AttributeError:
                return  # a loader without a place of its own: no charts

    sys.meta_path.insert(0, Watcher())


def _fail(error):
    """What the interpreter does at an exception nobody caught, without the frame that is ours."""
    import sys

    kind, trace = type(error), error.__traceback__.tb_next
    error = error.with_traceback(trace)
    try:
        sys.excepthook(kind, error, trace)
    except SystemExit:
        raise
    except BaseException:
        sys.__excepthook__(*sys.exc_info())
        sys.__excepthook__(kind, error, trace)
    sys.exit(130 if issubclass(kind, KeyboardInterrupt) else 1)


def _run():
    import sys

    program, fail = _prepare(), _fail
    scope = sys.modules["__main__"].__dict__
    for name in ("_prepare", "_watch_for_pyplot", "_fail", "_run"):
        del scope[name]
    scope["__doc__"] = None
    try:
        exec(compile(program, "<stdin>", "exec", dont_inherit=True), scope)  # noqa: S102  the purpose
    except SystemExit:
        raise
    except BaseException as error:
        caught = error
    else:
        return
    fail(caught)


_run()
