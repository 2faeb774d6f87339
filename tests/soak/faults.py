# SPDX-License-Identifier: Apache-2.0
"""Makes system calls of the library fail: each call, at each place in the library, with each error that
the call may return. In each run, inject.cpp makes one call fail once, in a program that forks. The program
must end with exact results. If the log says so, its children may compute with one thread, or the library
may leave a runtime as it is. Then the program may also hang or fail as it does without the library."""
import errno
import os
import platform
import random
import re
import subprocess
import sys
import time

import storm
import watched

FORKS = 3
ERRORS = {  # what each call may fail with; a filter of system calls may refuse any of them (EPERM)
    "clock_getres": "EINVAL EPERM", "clock_gettime": "EINVAL EPERM", "close": "EINTR EIO",
    "futex": "EAGAIN EINTR ENOMEM EPERM", "getcwd": "ENOENT ERANGE ENOMEM",
    "getpid": "EPERM", "lseek": "ESPIPE EINVAL", "madvise": "EINVAL ENOMEM EPERM",
    "mmap": "ENOMEM EAGAIN EPERM ENODEV", "mprotect": "ENOMEM EACCES EPERM",
    "munmap": "ENOMEM EINVAL", "openat": "ENOENT EACCES EMFILE ENFILE ELOOP EPERM", "ppoll": "EINTR ENOMEM EPERM",
    "read": "EIO EINTR EISDIR", "rt_sigpending": "EPERM", "rt_sigprocmask": "EPERM",
    "rt_sigtimedwait": "EPERM",  # EAGAIN would mean that no signal is pending
    "sched_getaffinity": "EINVAL EPERM",
    "statx": "ENOSYS ENOENT EACCES EPERM", "write": "EAGAIN EINTR ENOSPC EIO EPIPE",
}
NUMBERS = {  # x86-64
    "read": 0, "write": 1, "close": 3, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11,
    "rt_sigprocmask": 14, "madvise": 28, "getpid": 39, "getcwd": 79,
    "rt_sigpending": 127, "rt_sigtimedwait": 128, "futex": 202, "sched_getaffinity": 204, "clock_gettime": 228,
    "clock_getres": 229, "openat": 257, "ppoll": 271, "statx": 332,
}
NAMES = {number: name for name, number in NUMBERS.items()}
# Functions of the library that do nothing but call on, a runtime's function or glibc. The system calls
# behind them are not the library's: they happen without the library too. The compiler may give the call of
# a Passage to the trampoline that it is inlined into.
CALLS_ON = re.compile(r"^forksafe::Passage<.*>::operator\(\)|::trampoline<|::forks<")

UNREAD = "OpenBLAS, standard error is a pipe that nobody reads"
UNREAD_CALLS = ("ppoll", "rt_sigpending", "rt_sigprocmask", "rt_sigtimedwait", "write")  # those of report.cpp
SITUATIONS = {  # name: (runtime of storm.py, program and its arguments, environment)
    "OpenBLAS, Debian": ("OpenBLAS, Debian", "--flight=1", {}),
    "OpenBLAS, numpy 2.4": ("OpenBLAS, numpy 2.4", "--flight=1", {}),
    "OpenBLAS on OpenMP": ("OpenBLAS on OpenMP, Debian", "--flight=1", {}),
    "OpenBLAS, auto": ("OpenBLAS, Debian", "--flight=1", {"FORKSAFE_CHILD_THREADS": "auto"}),
    "OpenBLAS, drop": ("OpenBLAS, Debian", "--flight=0", {"FORKSAFE_POOL": "drop"}),
    "BLIS, OpenMP": ("BLIS, OpenMP", "--flight=0", {}),
    "GNU OpenMP": ("GNU OpenMP", None, {}),
    UNREAD: ("OpenBLAS, Debian", "--flight=0", {"FORKSAFE_LOG": "stderr"}),
}


class Program:
    def __init__(self, build, name):
        runtime_name, flight, extra = SITUATIONS[name]
        runtime = storm.Runtime(build, runtime_name)
        self.name = name
        self.build = build
        self.log = build / "soak/faults.log"
        self.places = build / "soak/places"
        self.command = (
            [build / "tests/omp_forker", "flight", str(FORKS)] if flight is None else
            [build / "tests/blas_forker", *runtime.arguments, flight, f"--forks={FORKS}", "--n=80",
             "--or-one-thread=yes"])
        # FORKSAFE_LOG is a relative path, so the library calls getcwd.
        self.environment = {**runtime.environment, "FORKSAFE_LOG": self.log.name,
                            "OMP_WAIT_POLICY": "passive", "OPENBLAS_THREAD_TIMEOUT": "18", **extra}
        self.early = [build / "tests/limited", "closed-stderr"] if name == UNREAD else []
        self.calls = UNREAD_CALLS if name == UNREAD else NUMBERS

    def run(self, what):
        """Runs the program with `what` as inject's instruction. Returns the outcome, and what inject
        wrote."""
        library = str(self.build / "shim/libforksafe.so")
        self.log.write_text("")
        words = [*self.early, self.build / "tests/inject", library, what, "env", f"LD_PRELOAD={library}",
                 *self.command]
        command = ["sh", "-c", 'exec "$@" 3>places', "sh", *map(str, words)]
        outcome = watched.run(self.build, command, self.environment, quiet=20,
                              folder=self.build / "soak")
        return outcome, self.places.read_text().split("\n")[:-1]

    def list_places(self):
        """Returns {(call, function, who): SITE} of the calls that the library makes."""
        sites = set()
        for _ in range(2):  # in some runs, no thread waits at a certain gate
            outcome, lines = self.run("-")
            if outcome.status != 0:
                sys.exit(f"soak.sh: {self.name} does not run: {outcome.output.decode()}")
            sites.update(tuple(line.split()) for line in lines)
        result = {}
        for number, site, who in sorted(sites):
            name = NAMES.get(int(number))
            chain = functions(self.build / "shim/libforksafe.so", site)
            if CALLS_ON.search(chain.split(" in ")[0]):
                continue
            if name is None:
                sys.exit(f"soak.sh: faults.py does not know the system call {number} in {chain}")
            if name not in self.calls:
                continue
            result[(name, chain, "child" if who == "1" else "parent", f"{site}:{who}")] = None
        return list(result)


def functions(library, site):
    done = subprocess.run(["addr2line", "-f", "-i", "-C", "-e", library, f"{int(site, 16) - 1:x}"],
                          capture_output=True, text=True, check=True)
    return " in ".join(done.stdout.splitlines()[::2])


def judge(outcome, log):
    """Returns what happened after a call has failed."""
    if outcome.status == 0:
        return "exact, one thread" if "computes with one thread" in log else "exact"
    if "left as it is" in log:
        return "as without the library, as the log says"
    return "hang" if outcome.stuck else "wrong"


def run(build, seed, end):
    if platform.machine() != "x86_64":
        print("faults: skipped, it needs x86-64")
        return {"well": True, "cases": 0, "distinct": 0, "faults": []}
    cases = []
    for name in SITUATIONS:
        try:
            program = Program(build, name)
        except FileNotFoundError as missing:
            print(f"skipped: {name}, no {missing}")
            continue
        for call, chain, who, where in program.list_places():
            cases += [(program, call, chain, who, where, error) for error in ERRORS[call].split()]
    random.Random(seed).shuffle(cases)
    # Try each place with each error in one situation first. The other situations follow if time is left.
    seen = set()
    first, others = [], []
    for case in cases:
        key = (case[1], case[2], case[3], case[5])
        (others if key in seen else first).append(case)
        seen.add(key)
    cases = first + others
    rows = []
    for program, call, chain, who, where, error in cases:
        if rows and time.monotonic() > end:
            break
        what = f"{NUMBERS[call]}:{where}:{getattr(errno, error)}"
        for _ in range(3):  # in some runs, no thread reaches that place
            outcome, lines = program.run(what)
            if "failed" in lines:
                break
        result = judge(outcome, program.log.read_text()) if "failed" in lines else "not reached"
        rows.append({"situation": program.name, "call": call, "error": error, "who": who,
                     "place": chain.split(" in ")[0], "site": where, "result": result})
        if result in ("hang", "wrong"):
            print(f"faults: {program.name}: {call} fails with {error} in {chain}, {who}: {result}, "
                  f"status {outcome.status}: {outcome.output.decode()}\n"
                  f"  instruction for inject: {what}\n{outcome.verdict or ''}", flush=True)
    bad = [row for row in rows if row["result"] in ("hang", "wrong")]
    print(f"faults: {len(rows)} of {len(cases)} faults tried, {len(bad)} not as promised", flush=True)
    return {"well": not bad, "cases": len(cases), "distinct": len(first), "faults": rows}


def report(result):
    rows = result["faults"]
    lines = []
    for call in sorted({row["call"] for row in rows}):
        for error in ERRORS[call].split():
            own = [row for row in rows if row["call"] == call and row["error"] == error]
            if not own:
                continue
            places = {(row["place"], row["who"]) for row in own}
            counts = {}
            for row in own:
                counts[row["result"]] = counts.get(row["result"], 0) + 1
            text = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
            lines.append(f"| {call} | {error} | {len(places)} | {len(own)} | {text} |")
    return f"""## System calls that fail

A program forks {FORKS} times, in one of these situations: {', '.join(SITUATIONS)}. In each run, one system call \
that the library makes fails once, in the parent or in a descendant. Each call, place and error makes a \
different fault: {result['distinct']} faults, or {result['cases']} if each is tried in every situation. \
{len(rows)} were tried, different faults first. Calls that need no kernel (`clock_gettime` by the vDSO) can't \
fail.

| call | error | places | runs | results |
| --- | --- | --- | --- | --- |
""" + "\n".join(lines) + """

- *exact*: all children and all calls in flight had the right bits. *exact, one thread*: the log also said \
that a child computes with one thread.
- *as without the library*: the log said that a runtime is left as it is, and the program hung or failed as it \
does without the library.
- *not reached*: no thread came to that place in three runs.
"""
