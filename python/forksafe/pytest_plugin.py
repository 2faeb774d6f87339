# SPDX-License-Identifier: Apache-2.0
"""A plugin for pytest, which does nothing unless asked.

--forksafe                    starts pytest again with the library
--forksafe-diagnose SECONDS   says what a test waits for that runs longer than that
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any, Iterator

import pytest

import forksafe


def pytest_addoption(parser: Any) -> None:
    group = parser.getgroup("forksafe")
    group.addoption("--forksafe", action="store_true",
                    help="run the tests with the library that makes fork() safe with BLAS and OpenMP")
    group.addoption("--forksafe-diagnose", type=float, metavar="SECONDS",
                    help="for a test that runs longer than SECONDS, say what its processes wait for")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: Any) -> None:
    if config.option.forksafe:
        _run_again(config)
    seconds = config.option.forksafe_diagnose
    if seconds is None:
        return
    if not 0 < seconds < float("inf"):
        raise pytest.UsageError("--forksafe-diagnose: the seconds must be a number above 0")
    # Who debugs may take their time. With xdist, only the workers run tests.
    debugs = config.getoption("usepdb", False) or config.getoption("trace", False)
    distributes = config.getoption("numprocesses", None) and not _is_xdist_worker(config)
    if not debugs and not distributes:
        config.pluginmanager.register(_Diagnoser(seconds), "forksafe-diagnoser")


def _is_xdist_worker(config: Any) -> bool:
    return hasattr(config, "workerinput")


def _run_again(config: Any) -> None:
    if forksafe._has_arrived():
        return
    # xdist starts its workers with the environment of the controller.
    reason = "this worker of xdist was not started with the library"
    if not _is_xdist_worker(config):
        capture = config.pluginmanager.getplugin("capturemanager")
        if capture is not None:
            capture.stop_global_capturing()
        try:
            forksafe._exec_again()
        except forksafe.Error as e:
            reason = str(e)
    pytest.exit(f"--forksafe: {reason}", returncode=2)


class _Diagnoser:
    """Tells a process of its own when a test starts and ends. That process outlives a deadlock, and is
    no child of ours, so a test that waits for its children does not meet it."""

    def __init__(self, seconds: float) -> None:
        try:
            command = forksafe._command()
        except forksafe.Error as e:
            raise pytest.UsageError(f"--forksafe-diagnose: {e}") from None
        watchdog = os.path.join(os.path.dirname(forksafe.__file__), "_watchdog.py")
        # pytest has switched capturing off here, so standard error is the terminal's.
        starter = subprocess.Popen(
            [sys.executable, "-I", watchdog, command, str(os.getpid()), str(seconds)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        starter.wait()
        self._pipe = starter.stdin

    def _tell(self, line: str) -> None:
        try:
            assert self._pipe is not None
            self._pipe.write(line.encode(errors="replace") + b"\n")
            self._pipe.flush()
        except OSError:
            pass  # the watchdog was killed; the tests go on

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        self._tell("+" + item.nodeid.replace("\n", " "))
        yield
        self._tell("-")

    def pytest_enter_pdb(self) -> None:
        self._tell("-")
