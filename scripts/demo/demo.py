# SPDX-License-Identifier: Apache-2.0
"""Runs each case without the library, then under forksafe, and prints a table. Started by demo.sh."""

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import time

TIMEOUT = 20
SETUP_TIMEOUT = 120  # for the imports, which are slow if the disk cache is cold
PR_SET_CHILD_SUBREAPER = 36

HERE = os.path.dirname(os.path.abspath(__file__))
COLOURS = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
RED, GREEN, YELLOW = 31, 32, 33


class Case:
    def __init__(self, name, command, blas_folder=None):
        self.name = name
        self.command = command
        self.blas_folder = blas_folder  # the folder of the libblas.so.3 that numpy must use


class Outcome:
    def __init__(self, verdict, text, diagnosis=""):
        self.verdict = verdict  # "passed", "failed", or "cannot run"
        self.text = text
        self.diagnosis = diagnosis  # the text of `forksafe diagnose`, if a process is stuck


def list_cases(obspy, wheel):
    """Returns the cases. `obspy` is the path of a Python that has ObsPy with Debian's numpy and scipy,
    `wheel` that of a Python that has numpy from PyPI. Either may be None."""
    notes = os.path.join(HERE, "notes_program.py")
    multiply = os.path.join(HERE, "fork_and_multiply.py")
    libraries = os.path.join("/usr/lib", sysconfig.get_config_var("MULTIARCH") or "")
    openmp = os.path.join(libraries, "openblas-openmp")
    own_threads = os.path.join(libraries, "openblas-pthread")
    cases = []
    if obspy:
        cases.append(Case("the notes' program: obspy, Pool(2), 50 times; Debian's numpy, OpenMP OpenBLAS",
                          [obspy, notes], openmp))
    if wheel:
        cases.append(Case("numpy wheel, a thread inside a @ a",
                          [wheel, multiply, "openblas", "--busy"]))
    cases += [
        Case("Debian's numpy, OpenBLAS with its own threads, a thread inside a @ a",
             [sys.executable, multiply, "openblas-pthread", "--busy"], own_threads),
        Case("Debian's numpy, OpenMP OpenBLAS, no thread inside",
             [sys.executable, multiply, "openblas-openmp"], openmp),
    ]
    return cases


def environment(case):
    """Returns the caller's environment without the variables that choose a BLAS, a number of threads
    or a preload. With one thread, for example, nothing would hang."""
    env = {name: value for name, value in os.environ.items()
           if not name.startswith(("OMP_", "GOMP_", "KMP_", "FORKSAFE"))
           and not name.endswith("_NUM_THREADS")
           and name not in ("LD_PRELOAD", "LD_LIBRARY_PATH")}
    if case.blas_folder:
        env["LD_LIBRARY_PATH"] = case.blas_folder
    return env


def where_stuck(process, forksafe):
    """Asks `forksafe diagnose` about the process and its children. Returns where the first process
    that is stuck waits, and why; two empty texts if diagnose finds none."""
    try:
        answer = subprocess.run([forksafe, "diagnose", "--children", "--json", str(process.pid)],
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                timeout=20, check=False)
        verdicts = json.loads(answer.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return "", ""
    for verdict in verdicts:
        if verdict.get("stuck"):
            who = "parent" if verdict["pid"] == process.pid else "child"
            return f"{who} in {verdict['place']} ({verdict['code']})", verdict["text"]
    return "", ""


def end_group(process):
    """Kills and reaps what is left of the case. Nobody has reaped the leader yet, so no other group can
    have its number. This process is a subreaper, so orphans of the case are its children."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    while True:
        try:
            os.waitpid(-process.pid, 0)
        except ChildProcessError:
            return


def has_ended(process):
    """Returns whether the process has ended, and does not reap it."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def run(case, forksafe, guarded):
    if case.blas_folder and not os.path.isdir(case.blas_folder):
        return Outcome("cannot run", f"can't run: no folder {case.blas_folder}")
    # Files rather than pipes, because a child that outlives its parent would keep a pipe open.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        interpreter, *arguments = case.command
        # -E -s: ignore PYTHONPATH and the user's packages, which may have another numpy.
        command = [interpreter, "-E", "-s", "-B", *arguments]
        process = subprocess.Popen([forksafe, *command] if guarded else command, stdout=output,
                                   stderr=errors, stdin=subprocess.DEVNULL, env=environment(case),
                                   start_new_session=True)
        stuck = None
        try:
            is_ready = False
            limit = SETUP_TIMEOUT
            deadline = time.monotonic() + limit
            while not has_ended(process):
                if not is_ready and read(output).startswith("ready"):
                    is_ready = True
                    limit = TIMEOUT
                    deadline = time.monotonic() + limit
                if time.monotonic() > deadline:
                    place, diagnosis = where_stuck(process, forksafe)
                    stuck = Outcome("failed", f"hung after {limit} s" + (f": {place}" if place else ""),
                                    diagnosis)
                    break
                time.sleep(0.05)
        finally:
            end_group(process)
        if stuck:
            return stuck
        return judge(process.returncode, read(output), read(errors))


def read(file):
    # pread, because the case shares the file offset and writes at it.
    return os.pread(file.fileno(), 1 << 20, 0).decode(errors="replace")


def judge(status, output, errors):
    last = (output.strip().splitlines() or [""])[-1]
    try:
        said = json.loads(last)
    except ValueError:
        said = {}
    if status == 77 and "cannot_run" in said:
        return Outcome("cannot run", "can't run: " + said["cannot_run"])
    if "count" in said:
        done = f"{said['count']} {said['what']} in {said['seconds']:.1f} s"
        if status == 0 and said["exact"]:
            return Outcome("passed", done)
        return Outcome("failed", done + ", but results differ")
    if status < 0:
        return Outcome("failed", f"crashed: {signal.Signals(-status).name}")
    why = (errors.strip().splitlines() or [f"exit status {status}"])[-1]
    return Outcome("failed", "failed: " + why)


def paint(text, colour):
    return f"\033[{colour}m{text}\033[0m" if COLOURS and colour else text


def colour_of(outcome):
    return {"passed": GREEN, "failed": RED, "cannot run": YELLOW}[outcome.verdict]


def print_table(rows):
    """Prints the table in at most 100 columns: cells of 34, 38 and 24, and two gaps of 2."""
    titles = ("case", "without", "with")
    table = [[(case.name, None), (without.text, colour_of(without)),
              (with_it.text, colour_of(with_it))] for case, without, with_it in rows]
    cells = [[(textwrap.wrap(text, most, break_on_hyphens=False), colour)
              for (text, colour), most in zip(row, (34, 38, 24))] for row in table]
    widths = [max(len(line) for line in [title] + sum((row[i][0] for row in cells), []))
              for i, title in enumerate(titles)]
    rule = "  ".join("-" * width for width in widths)
    print("  ".join(title.ljust(width) for title, width in zip(titles, widths)).rstrip())
    for row in cells:
        print(rule)
        for number in range(max(len(lines) for lines, _ in row)):
            parts = [paint((lines[number] if number < len(lines) else "").ljust(width), colour)
                     for (lines, colour), width in zip(row, widths)]
            print("  ".join(parts).rstrip())
    print(rule)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forksafe", required=True, help="the command")
    parser.add_argument("--obspy", help="a Python that has obspy with Debian's numpy and scipy")
    parser.add_argument("--wheel", help="a Python that has numpy from PyPI")
    options = parser.parse_args()

    # SIGTERM and SIGHUP raise SystemExit, so `finally` ends the case that is running.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    if len(os.sched_getaffinity(0)) < 2:
        print("Note: there is only one core. BLAS starts no threads then, and nothing hangs.")
    cases = list_cases(options.obspy, options.wheel)
    print(f"A case counts as hung if it still runs {TIMEOUT} s after its first fork.")
    rows = []
    for number, case in enumerate(cases, 1):
        print(f"[{number}/{len(cases)}] {case.name}")
        outcomes = []
        for title, guarded in (("without", False), ("with", True)):
            print(f"      {title + ':':9}", end="", flush=True)
            outcomes.append(run(case, options.forksafe, guarded))
            print(paint(outcomes[-1].text, colour_of(outcomes[-1])), flush=True)
            if outcomes[-1].diagnosis:
                print(textwrap.fill("forksafe diagnose: " + outcomes[-1].diagnosis, 100,
                                    initial_indent=" " * 15, subsequent_indent=" " * 15), flush=True)
        rows.append((case, *outcomes))

    print()
    print_table(rows)
    print()
    not_cured = [case.name for case, _, with_it in rows if with_it.verdict != "passed"]
    shown = [case for case, without, _ in rows if without.verdict == "failed"]
    if not_cured:
        print("NOT shown: these cases did not pass with the library: " + "; ".join(not_cured))
        return 1
    if not shown:
        print("NOT shown: every case passed without the library too, so there was nothing to cure.")
        return 1
    print(f"{len(shown)} of {len(rows)} cases fail without the library; "
          f"with it all {len(rows)} pass, with exact results.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
