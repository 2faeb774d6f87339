#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs one case of cases/ without the library and with it, and records both outcomes.

    run_case.py --build BUILD --forksafe PATH NAME

The program of a case computes in the parent, forks, and compares the child's result with the
parent's. It prints a dot for each child that returns the right result. Before it forks, it asks this
script to inspect it (programs/wild.py: parent_is_ready()). At that moment a worker of the case's
runtime must be alive.

Exit status: 0 if both outcomes are those that the table expects; 1 if one is not; 77 if the case
can't be run here, and standard output says why. The result goes to BUILD/wild/results/NAME.json.
"""
import argparse
import ctypes
import json
import os
import re
import selectors
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import cases

PR_SET_CHILD_SUBREAPER = 36
QUIET = 4  # after so many seconds without output, `forksafe diagnose` says whether it is stuck
# On a busy machine a call may take longer than the default of 1000 ms. Then the child computes with
# one thread. Its result is right, but differs from the parent's in the last bits.
WAIT_MS = "20000"
TRIES = 3  # a hang that depends on a race between threads does not happen in every run


class Skipped(Exception):
    """The case can't be run here."""


class Attempt:
    """One run of a program, without or with the library."""

    def __init__(self, case, command, environment, forksafe):
        self.case = case
        self.forksafe = forksafe
        self.parents = []  # what `forksafe diagnose` reports of each process that is about to fork
        self.forks = 0
        with tempfile.TemporaryDirectory(prefix="forksafe-wild-") as folder:
            self.folder = Path(folder)
            self.errors = self.folder / "errors"
            environment = {**environment, "WILD_FOLDER": folder}
            self.lay_out()
            start = time.monotonic()
            with self.errors.open("wb") as errors:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                    env=environment, cwd=folder, start_new_session=True)
            try:
                self.outcome, self.text = self.watch(start)
            finally:
                end_descendants()
            self.seconds = time.monotonic() - start
            self.log = self.errors.read_text(errors="replace")

    def lay_out(self):
        """Puts files into the folder in which the program runs. Here there are none."""

    def watch(self, start):
        """Waits until the program ends or is stuck. Returns the outcome, and a text that explains
        it."""
        selector = selectors.DefaultSelector()
        selector.register(self.process.stdout, selectors.EVENT_READ)
        os.set_blocking(self.process.stdout.fileno(), False)
        last_output = time.monotonic()
        while True:
            selector.select(0.02)
            output = self.process.stdout.read()
            if output:
                self.forks += output.count(b".")
                last_output = time.monotonic()
                continue
            if self.look_at_parents():
                last_output = time.monotonic()
            status = self.process.poll()
            if status is not None:
                return self.judge_end(status)
            now = time.monotonic()
            if now - last_output > QUIET:
                # Orphans of the program are children of this process, too.
                stuck = [d for child in children_by_parent().get(os.getpid(), [])
                         for d in self.diagnose("--children", child) if d.get("stuck")]
                if stuck:
                    return "hangs", "; ".join(place(d, self.process.pid) for d in stuck[:3])
                last_output = now
            if now - start > self.case.seconds:
                return "hangs", f"still runs after {self.case.seconds} s: {self.last_error()}"

    def judge_end(self, status):
        if status < 0:
            return "crashes", signal.Signals(-status).name
        if status > 0:
            return "fails", f"status {status}: {self.last_error()}"
        if self.forks < self.case.forks:
            return "fails", f"only {self.forks} of {self.case.forks} children returned the right result"
        return "passes", ""

    def last_error(self):
        lines = self.errors.read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else ""

    def look_at_parents(self):
        """Inspects the processes that have asked for it, and lets them continue."""
        seen = list(self.folder.glob("parent-*"))
        for request in seen:
            self.parents += self.diagnose(request.name.removeprefix("parent-"))
            request.unlink()
        return bool(seen)

    def diagnose(self, *words):
        answer = subprocess.run([self.forksafe, "diagnose", "--json", *map(str, words)],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        return json.loads(answer.stdout) if answer.stdout.strip() else []


def place(diagnosis, leader):
    where = "the parent" if diagnosis["pid"] == leader else "a child"
    return f"{where}: {diagnosis['code']}, {diagnosis['place']}"


def end_descendants():
    """Kills and reaps all descendants of this process. Orphans among them are its children, because
    main() makes it a subreaper."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for pid in descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


def children_by_parent():
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    return children


def descendants(ancestor):
    children = children_by_parent()
    found = children.get(ancestor, [])
    for pid in found:
        found += children.get(pid, [])
    return found


def workers(parent, runtime):
    """Returns how many threads of a process were started by the object whose name matches the
    pattern `runtime`."""
    count = 0
    for thread in parent["threads"]:
        outermost = [f["object"] or "" for f in reversed(thread["frames"])
                     if not re.match(r"libc[.-]|libpthread|ld-", os.path.basename(f["object"] or ""))]
        if thread["tid"] != parent["pid"] and outermost:
            count += re.search(runtime, os.path.basename(outermost[0])) is not None
    return count


def guarded(parent, runtime):
    """Returns whether the library guards each copy of the runtime that a fork would harm."""
    return all(r["guarded"] for r in parent["runtimes"]
               if re.search(runtime, os.path.basename(r["filepath"])) and
               not r["fork_in_flight"]["safe"])


def check(case, without, with_library):
    """Returns the reasons why the case has failed; an empty list if it has not."""
    problems = []
    for name, attempt in (("without", without), ("with", with_library)):
        if not any(workers(p, case.runtime) > 0 for p in attempt.parents):
            problems.append(f"{name}: no parent had a worker of {case.runtime} before it forked "
                            f"(the program {attempt.outcome}: {attempt.text})")
    if without.outcome not in case.without:
        problems.append(f"without: the table says that the program {' or '.join(case.without)}, "
                        f"but it {without.outcome}: {without.text}")
    if with_library.outcome != case.with_library:
        problems.append(f"with: the table says that the program {case.with_library}, but it "
                        f"{with_library.outcome}: {with_library.text}")
    is_guarded = all(guarded(p, case.runtime) for p in with_library.parents)
    if case.recipe and case.with_library != "passes":
        if is_guarded:
            problems.append("with: the library did guard the runtime, so this is no trap")
    elif not is_guarded:
        problems.append("with: the library did not guard the runtime")
    return problems


def versions(case, folder):
    """Returns the versions of the case's packages by name. Raises Skipped if one is missing."""
    found = {}
    installed = {}
    if case.environment:
        sites = [str(p) for p in folder.glob("lib/python3*/site-packages")]
        installed = {d.metadata["Name"].lower().replace("_", "-"): d.version
                     for d in metadata.distributions(path=sites)}
    for package in case.packages:
        if package.lower() not in installed:
            raise Skipped(f"{package} is not installed in {folder} (sh scripts/test.sh --{case.suite})")
        found[package] = installed[package.lower()]
    for package in case.debian:
        answer = subprocess.run(
            ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", package],
            capture_output=True, text=True, check=False)
        status, _, version = answer.stdout.partition(" ")
        if status != "installed":
            raise Skipped(f"Debian's {package} is not installed (sh scripts/test.sh --{case.suite})")
        found[package] = version
    return found


def command_of(case, build, environment_folder):
    """Returns the command line of a case. The suffix of its program says what runs the program."""
    sources = build / "wild" / "sources" / case.sources
    if case.sources and not sources.exists():
        raise Skipped(f"Debian's sources of {case.sources} are not in {sources} "
                      "(sh scripts/test.sh --wild)")
    program, *arguments = shlex.split(case.run.format(sources=sources.absolute()))
    source = Path(__file__).parent / "programs" / program
    python = environment_folder / "bin" / "python" if case.environment else "/usr/bin/python3"
    runners = {".py": [python], ".R": ["Rscript", "--vanilla"],
               ".m": ["octave-cli", "--no-gui", "--quiet", "--norc"], ".sh": ["sh"]}
    runner = runners.get(source.suffix)
    if runner is None:
        executable = build / "tests" / "wild" / program
        if not executable.exists():
            raise Skipped(f"{program} is not built: its dependencies were missing at meson setup")
        return [str(executable), *arguments]
    return [*map(str, runner), str(source), *arguments]


def environment_of(case, environment_folder):
    environment = {name: value for name, value in os.environ.items()
                   if not re.match("FORKSAFE|LD_|MALLOC_|PYTHON|VIRTUAL_ENV", name) and
                   not name.endswith("_NUM_THREADS")}
    environment["PATH"] = f"{environment_folder}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    environment["PYTHONPATH"] = str(Path(__file__).parent / "programs")
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    environment["WILD_FORKS"] = str(case.forks)
    environment["FORKSAFE_WAIT_MS"] = WAIT_MS
    environment.update(case.variables)
    return environment


def summary(attempt):
    return {"outcome": attempt.outcome, "text": attempt.text, "forks": attempt.forks,
            "seconds": round(attempt.seconds, 1)}


def attempts(case, command, environment, options):
    """Returns two functions that run the case: without the library, and with it."""
    return (lambda: Attempt(case, command, environment, options.forksafe),
            lambda: Attempt(case, [options.forksafe, *command], environment, options.forksafe))


def read_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--forksafe", type=os.path.abspath, required=True)
    parser.add_argument("name")
    return parser.parse_args()


def become_reaper():
    """Makes this process a subreaper: it becomes the parent of its orphans, and can kill them."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def new_result(case, build):
    """Returns the file for the result of a case. What an earlier run left there is removed."""
    result = build / "wild" / "results" / f"{cases.file_name(case.name)}.json"
    result.parent.mkdir(parents=True, exist_ok=True)
    result.unlink(missing_ok=True)
    return result


def prepare(case, build, command_of=command_of):
    """Returns the versions of the case's packages, its command and its environment. If it needs
    something that is missing, ends with status 77."""
    folder = (build / "wild" / case.environment).absolute()
    try:
        return versions(case, folder), command_of(case, build, folder), environment_of(case, folder)
    except Skipped as reason:
        print(f"skipped: {reason}")
        sys.exit(77)


def main(command_of=command_of, attempts=attempts):
    options = read_arguments()
    become_reaper()
    case = cases.by_name(options.name)
    result = new_result(case, options.build)
    packages, command, environment = prepare(case, options.build, command_of)
    print("$", shlex.join(command), flush=True)
    run_without, run_with = attempts(case, command, environment, options)
    for _ in range(TRIES):
        without = run_without()
        print("without:", summary(without), flush=True)
        if without.outcome in case.without:
            break
    with_library = run_with()
    print("with:", summary(with_library), flush=True)

    problems = check(case, without, with_library)
    parent = next((p for p in with_library.parents if workers(p, case.runtime)), None)
    result.write_text(json.dumps({
        "name": case.name, "group": case.group, "what": case.what, "why": case.why,
        "packages": packages, "runtime": case.runtime,
        "runtimes": parent["runtimes"] if parent else [],
        "parent_threads": len(parent["threads"]) if parent else None,
        "without": summary(without), "with": summary(with_library), "problems": problems,
    }, indent=1) + "\n")
    for problem in problems:
        print("FAILED", problem)
    if problems:
        for name, attempt in (("without", without), ("with", with_library)):
            print(f"The last lines of standard error {name} the library:",
                  *attempt.log.splitlines()[-15:], sep="\n  ")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
