# SPDX-License-Identifier: Apache-2.0
"""fork() that is safe with BLAS and OpenMP thread pools.

The library must be there when a process starts: it can't be loaded into a process that runs. So this
package starts processes. Two lines at the top of a program, before numpy is imported, start it again
with the library:

    import forksafe
    forksafe.reexec()

Everything that touches the environment is asked of the command ``forksafe``, which is installed with
this package.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, Mapping, Sequence

__all__ = ["Error", "active", "environ", "library", "reexec", "run", "runtimes"]

# Set to the process id before a re-exec, which keeps the id. Children that inherit the variable have
# other ids.
_GUARD = "FORKSAFE_REEXEC"


class Error(RuntimeError):
    """What was asked can't be done. The message is one line that says why."""


def active() -> bool:
    """Whether the library is in this process and switched on.

    False after a plain dlopen of the library, which comes too late to guard anything.
    """
    if sys.platform != "linux":
        return False
    try:
        import ctypes

        everything = ctypes.CDLL(None)
        state = ctypes.addressof(ctypes.c_uint32.in_dll(everything, "forksafe_state"))
        register = ctypes.cast(everything["__register_atfork"], ctypes.c_void_p)
        find = everything.dladdr
    except (ImportError, OSError, AttributeError, ValueError):
        return False
    # struct forksafe::State: version, enabled.
    enabled = ctypes.c_uint32.from_address(state + 4).value

    # The library guards a process by defining this function of libc's, and so it must come before
    # libc. A library that is loaded later comes behind it.
    class Info(ctypes.Structure):
        _fields_ = [("file", ctypes.c_char_p), ("base", ctypes.c_void_p),
                    ("name", ctypes.c_char_p), ("address", ctypes.c_void_p)]

    find.argtypes = [ctypes.c_void_p, ctypes.POINTER(Info)]
    in_state, in_register = Info(), Info()
    return bool(find(state, in_state) and find(register, in_register)
                and in_state.base == in_register.base and enabled)


def library() -> str:
    """The path of libforksafe.so. Raises Error if it is missing or can't be loaded."""
    return _ask(["--print-library"]).rstrip("\n")


def environ(*, child_threads: int | str | None = None, wait_ms: int | None = None,
            pool: str | None = None, log: str | os.PathLike[str] | None = None) -> dict[str, str]:
    """The variables that a child process needs, and nothing else: merge them into its environment.

    They belong to the environment of this process as it is now: what LD_PRELOAD names already is kept.
    The options are those of the command. Raises Error if the library can't work, or an option is wrong.
    """
    return _changes(_options(child_threads, wait_ms, pool, log))


def run(args: str | Sequence[str], *, child_threads: int | str | None = None,
        wait_ms: int | None = None, pool: str | None = None,
        log: str | os.PathLike[str] | None = None, **kwargs: Any) -> Any:
    """subprocess.run(args, **kwargs), under forksafe.

    If the library can't be preloaded into the program, nothing runs: one line goes to standard error,
    and the return code is 2. It is 127 if there is no such program, and 126 if it can't be run.
    """
    import subprocess

    if "executable" in kwargs:
        raise Error("run: executable can't be given: name the program in args")
    words = [args] if isinstance(args, (str, bytes, os.PathLike)) else list(args)
    if kwargs.pop("shell", False):
        words = ["/bin/sh", "-c", *words]
    options = _options(child_threads, wait_ms, pool, log)
    command = _command()
    try:
        return subprocess.run([command, *options, "--", *words], **kwargs)
    except OSError as e:
        if e.filename != command:
            raise
        raise _cannot_run(command, e) from None


def runtimes(pid: int | None = None) -> list[dict[str, Any]]:
    """The BLAS and OpenMP runtimes that a process has loaded, as ``forksafe list --json`` shows them.

    The process is this one if no id is given.
    """
    import json

    if pid is None:
        _let_descendants_trace()
    try:
        found: list[dict[str, Any]] = json.loads(_ask(["list", "--json", str(os.getpid() if pid is None else pid)]))
    finally:
        if pid is None:
            _let_descendants_trace(False)
    return found


def reexec() -> None:
    """Starts this program again with the library, unless it has it already. Call it before numpy is
    imported.

    If the program can't be started again, one line on standard error says why, and the program goes on
    without the library. With FORKSAFE=0 in the environment, and in a child of multiprocessing, the
    function does nothing.
    """
    if _has_arrived() or os.environ.get("FORKSAFE") == "0" or _is_worker():
        return
    try:
        if "_pytest.config" in sys.modules:
            # pytest has redirected the output. Only the plugin can undo that before it starts pytest again.
            raise Error("pytest runs it: use pytest --forksafe")
        _exec_again()
    except Error as e:
        _say_once(f"this program runs without the library: {e}")


def _has_arrived() -> bool:
    """active(); if a re-exec has led here, its trace in the environment is removed."""
    arrived = active()
    if arrived and os.environ.get(_GUARD) == str(os.getpid()):
        del os.environ[_GUARD]
    return arrived


_said: set[str] = set()


def _say_once(line: str) -> None:
    if line in _said or sys.stderr is None:
        return
    _said.add(line)
    with contextlib.suppress(OSError, ValueError):
        print(f"forksafe: {line}", file=sys.stderr, flush=True)


def _exec_again() -> None:
    """Does not return. Raises Error if the program must not be started again, or can't be."""
    reason = _why_not_again()
    if reason:
        raise Error(reason)
    environment = {**os.environ, **_changes([]), _GUARD: str(os.getpid())}
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):  # a closed stream raises ValueError
                stream.flush()
    try:
        os.execve(sys.executable, [sys.executable, *_original_arguments()[1:]], environment)
    except OSError as e:
        raise Error(f"{sys.executable}: {e.strerror}") from None


def _why_not_again() -> str:
    """Why this program must not be started again; empty if it may be."""
    if sys.platform != "linux":
        return f"it works on Linux only, not on {sys.platform}"
    _command()
    if os.environ.get(_GUARD) == str(os.getpid()):
        return "it was started again with the library, which is not there: see LD_PRELOAD"
    main = sys.modules.get("__main__")
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        return "IPython and Jupyter can't be started again: start them under forksafe"
    arguments = _original_arguments()
    if getattr(sys, "frozen", False) or not arguments or not _is_python():
        return "Python is embedded in another program: start that under forksafe"
    if _is_forked():
        return "this process was forked: start its parent under forksafe"
    if hasattr(sys, "ps1") or (sys.argv[:1] == [""] and not hasattr(main, "__file__")):
        return "an interactive session can't be started again: start it under forksafe"
    script = sys.argv[0] if sys.argv else ""
    # Python has read its standard input, which can't be read again.
    if script in ("", "-") or getattr(main, "__file__", "") == "<stdin>":
        return "the program came by standard input, which can't be read again: run it by forksafe python"
    if _leads_elsewhere(arguments):
        return "the current folder has changed: call forksafe.reexec() before os.chdir()"
    # A pipe, as in `python <(...)`, is empty by now. A file may have been removed.
    if script in arguments and script not in ("-c", "-m") and not (os.path.isfile(script) or os.path.isdir(script)):
        return f"the program came from {script}, which can't be read again: run it by forksafe python"
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        return f"{threads} threads run already: call forksafe.reexec() first, before numpy is imported"
    return ""


def _is_worker() -> bool:
    """Whether this is a child of multiprocessing, or of what builds on it. Its parent decides."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and (
        process.parent_process() is not None
        or bool(getattr(process.current_process(), "_inheriting", False)))


def _leads_elsewhere(arguments: list[str]) -> bool:
    """Whether the arguments would start another program, or none, since the current folder has changed."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    spec = getattr(main, "__spec__", None)
    try:
        if sys.argv[0] == "-m" or (spec is not None and spec.name.removesuffix(".__main__") in arguments):
            # -m MODULE: Python puts the current folder first on sys.path.
            isolated = getattr(sys.flags, "safe_path", sys.flags.isolated)
            return not isolated and os.getcwd() not in sys.path
        if file is None or os.path.isabs(sys.argv[0]) or sys.argv[0] not in arguments:
            return False
        # __file__ is absolute. Python runs the __main__.py of a folder or of a zip file.
        places = {os.path.realpath(file), os.path.realpath(os.path.dirname(file) if spec else file)}
        return places.isdisjoint(map(os.path.realpath, arguments[1:]))
    except OSError:  # the current folder was removed
        return True


def _is_forked() -> bool:
    """Whether this process was forked and has executed no program since. Then the arguments are those of
    its parent, a server for example."""
    PF_FORKNOEXEC = 0x40
    try:
        with open("/proc/self/stat", "rb") as file:
            # After the name of the program, in parentheses, which may contain spaces and parentheses.
            flags = int(file.read().rpartition(b")")[2].split()[6])
    except (OSError, ValueError, IndexError):
        return False
    return bool(flags & PF_FORKNOEXEC)


def _original_arguments() -> list[str]:
    if sys.version_info >= (3, 10):
        return sys.orig_argv
    with open("/proc/self/cmdline", "rb") as file:
        return [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]


def _is_python() -> bool:
    try:
        return os.path.samefile("/proc/self/exe", sys.executable)
    except (OSError, TypeError):
        return False


def _command() -> str:
    """The path of the command. Raises Error if it is not where the package was installed with it."""
    packages = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if os.path.isfile(os.path.join(packages, "meson.build")):
        raise Error(f"{packages} is a source checkout: install the package")
    # PREFIX/lib/python3.X/site-packages, or the folder that pip was given with --target.
    prefixes = [packages]
    if os.path.basename(packages) in ("site-packages", "dist-packages"):
        prefixes.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(packages))))
    commands = [os.path.join(prefix, "bin", "forksafe") for prefix in prefixes]
    for command in commands:
        if os.path.isfile(command):
            return command
    raise Error(f"{commands[0]} is missing: install forksafe again")


def _options(child_threads: int | str | None, wait_ms: int | None, pool: str | None,
             log: str | os.PathLike[str] | None) -> list[str]:
    given: Mapping[str, Any] = {"--child-threads": child_threads, "--wait-ms": wait_ms,
                                "--pool": pool, "--log": log}
    return [word for option, value in given.items() if value is not None
            for word in (option, os.fspath(value) if option == "--log" else str(value))]


def _changes(options: list[str]) -> dict[str, str]:
    """What the command would set for a program of this Python."""
    import shlex

    program = sys.executable if sys.executable and os.path.isfile(sys.executable) else "/bin/sh"
    words = shlex.split(_ask([*options, "--dry-run", "--", program]))
    changes = [word.partition("=") for word in words[:-1]]  # the last word is the program
    return {name: value for name, _, value in changes}


def _cannot_run(command: str, error: OSError) -> Error:
    return Error(f"{command}: {error.strerror}: install forksafe again")


def _ask(arguments: list[str]) -> str:
    """The output of the command. Raises Error with its message if it fails."""
    import subprocess

    command = _command()
    try:
        done = subprocess.run([command, *arguments], stdin=subprocess.DEVNULL, capture_output=True)
    except OSError as e:
        raise _cannot_run(command, e) from None
    said = os.fsdecode(done.stderr).strip().splitlines()
    if done.returncode != 0:
        line = said[-1] if said else f"{command} ended with status {done.returncode}"
        raise Error(line[len("forksafe: "):] if line.startswith("forksafe: ") else line)
    return os.fsdecode(done.stdout)


def _let_descendants_trace(on: bool = True) -> None:
    """Where Yama lets a process trace its descendants only, lets ours trace this one."""
    try:
        import ctypes

        PR_SET_PTRACER = 0x59616D61
        ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(os.getpid() if on else 0), 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        pass  # the command says why it can't look
