# SPDX-License-Identifier: Apache-2.0
"""Runs a program until it ends or is stuck."""
import os
import select
import shlex
import signal
import subprocess
import time
from pathlib import Path

# After QUIET seconds without output, `forksafe diagnose` checks whether the program is stuck. A program
# that is only slow goes on, and is checked again later. A program that prints nothing for LONGEST seconds
# counts as stuck whatever diagnose says.
QUIET = 60
LONGEST = 600


def as_shell(command, environment):
    """Returns the line that runs the command in a shell."""
    return shlex.join(["env", *(f"{k}={v}" for k, v in environment.items()), *command])


def end_session(leader):
    """Kills the session that `leader` leads, and reaps what is left of it."""
    for _ in range(500):
        try:
            os.killpg(leader, signal.SIGKILL)
        except ProcessLookupError:
            pass
        try:
            while os.waitpid(-leader, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.02)


def diagnose(build, pid):
    """Returns (is something stuck, JSON) for a process and its descendants."""
    done = subprocess.run([build / "cli/forksafe", "diagnose", "--children", "--json", str(pid)],
                          capture_output=True, text=True, timeout=300, check=False)
    return done.returncode == 1, done.stdout + done.stderr


class Outcome:
    def __init__(self):
        self.status = None   # as of waitpid; None: it was stuck
        self.output = b""    # without the signs of progress
        self.dots = 0        # a dot is a child that ended well; a plus is a sign of life
        self.verdict = None  # what diagnose said when the program was quiet, as a text
        self.stuck = False
        self.seconds = 0.0


def run(build, command, environment, quiet=QUIET, longest=LONGEST, most=None, folder=None):
    """Runs the command in a session of its own. Ends the command after `most` seconds."""
    outcome = Outcome()
    begin = last = looked = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True, cwd=folder,
                               env={**os.environ, **environment})
    try:
        while True:
            if select.select([process.stdout], [], [], 0.2)[0]:
                data = os.read(process.stdout.fileno(), 65536)
                if data:
                    rest = data.lstrip(b".+")
                    outcome.dots += data[:len(data) - len(rest)].count(b".")
                    outcome.output += rest
                    last = looked = time.monotonic()
                    continue
                time.sleep(0.2)  # it has closed its output, and ends soon
            if process.poll() is not None:
                outcome.status = process.returncode
                break
            now = time.monotonic()
            if most is not None and now - begin > most:
                break
            if now - looked > quiet:
                outcome.stuck, outcome.verdict = diagnose(build, process.pid)
                looked = time.monotonic()
                if outcome.stuck or looked - last > longest:
                    outcome.stuck = True
                    break
    finally:
        outcome.seconds = time.monotonic() - begin
        end_session(process.pid)
        process.stdout.close()
    return outcome
