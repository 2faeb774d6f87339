# SPDX-License-Identifier: Apache-2.0
"""Runs Python with the forksafe that is installed for it, in a process group that does not outlive the test."""
import os
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent.parent
SECONDS = 60


class Done:
    def __init__(self, status, output, errors):
        self.status, self.output, self.errors = status, output, errors
        self.lines = output.splitlines()
        self.error_lines = errors.splitlines()

    def __repr__(self):
        return f"status {self.status}\n{self.output}\n{self.errors}"


def run(words, *, stdin=b"", env=None, cwd=None, timeout=SECONDS):
    """Runs a program to its end. Status None: it still ran after the timeout, and was ended with its children."""
    environment = {name: value for name, value in os.environ.items()
                   if name != "LD_PRELOAD" and not name.startswith(("FORKSAFE", "KMP_"))}
    environment.update(env or {})
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=output, stderr=errors, cwd=cwd,
                                   env=environment, start_new_session=True)
        try:
            process.communicate(stdin, timeout)
            status = process.returncode
        except subprocess.TimeoutExpired:
            status = None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read().decode(errors="surrogateescape"))
    return Done(status, *texts)


def python(*words, **kwargs):
    return run([sys.executable, *words], **kwargs)


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    def assert_prints(self, done, *lines):
        self.assertEqual((done.status, done.lines, done.errors), (0, list(lines), ""), done)

    def assert_one_line(self, done, pattern):
        self.assertEqual(len(done.error_lines), 1, done)
        self.assertRegex(done.errors, pattern)
