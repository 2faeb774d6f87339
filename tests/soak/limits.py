# SPDX-License-Identifier: Apache-2.0
"""Limits that the kernel, an administrator or a sandbox puts on a process (tests/programs/limits.h). A
program that forks runs under each, without the library and with it. With the library it must end with
exact results, if need be with one thread in its children, or do what it does without the library."""
import random
import signal
import time

import storm
import watched

FORKS = 3
QUIET = 2      # a program that has hung is looked at after so many seconds
LONGEST = 30   # so long it may print nothing
TRIES = 3      # a program that races without the library shows all that it does in so many runs

OPENBLAS = "OpenBLAS, Debian"
PROGRAMS = {  # name: (runtime of storm.py, calls in flight, environment)
    "OpenBLAS, idle": (OPENBLAS, 0, {}),
    "OpenBLAS, one call in flight": (OPENBLAS, 1, {}),
    "OpenBLAS, idle, auto": (OPENBLAS, 0, {"FORKSAFE_CHILD_THREADS": "auto"}),
    "OpenBLAS of numpy 2.4, one call in flight": ("OpenBLAS, numpy 2.4", 1, {}),
    "OpenBLAS on OpenMP, idle": ("OpenBLAS on OpenMP, Debian", 0, {}),
    "BLIS on OpenMP, idle": ("BLIS, OpenMP", 0, {}),
    "GNU OpenMP, idle": ("GNU OpenMP", 0, {}),
    "no BLAS and no OpenMP": (None, 0, {}),
}

FILTERS = {f"seccomp={call}:{what}": f"a filter {does} `{call}`"
           for call in ("madvise", "mprotect") for what, does in (("errno", "refuses"),
                                                                  ("kill", "kills at"))}
EARLY = {  # a limit that is set before the program starts: its name
    **{f"nproc={n}": f"RLIMIT_NPROC {n}" for n in range(1, 7)},
    **{f"as={mb}": f"RLIMIT_AS {mb} MB" for mb in (60, 100, 150, 200, 300, 400, 600, 1000)},
    "nofile=4": "RLIMIT_NOFILE 4", "fsize=0": "RLIMIT_FSIZE 0, with a log",
    **FILTERS, "mdwe": "PR_SET_MDWE", "no-proc": "no /proc", "read-only": "a read-only root",
    "without={build}/shim": "a root without the library's file",
    "full-stderr": "stderr is a full pipe, with a log",
    "closed-stderr": "stderr is a pipe without a reader, with a log",
    "stack=16": "16 kB of stack", "stack=64": "64 kB of stack", "stack=256": "256 kB of stack",
}
LATE = {  # a limit that the program sets when its thread pools run
    **{f"nproc={n}": f"RLIMIT_NPROC {n}" for n in range(1, 7)},
    **{f"as=+{mb}": f"RLIMIT_AS of {mb} MB more" for mb in (0, 1, 16, 64, 256)},
    "nofile=3": "RLIMIT_NOFILE reached", "fsize=0": "RLIMIT_FSIZE 0, with a log",
    **FILTERS, "mdwe": "PR_SET_MDWE", "chroot={build}/soak/empty": "an empty root",
}
NOT_TRIED = {
    "vm.overcommit_memory=2": "it is a setting of the whole machine",
}


NO_RUNTIME = "no BLAS and no OpenMP"
NO_FORK_NEEDED = "hangs, also without a fork"
WITH_STACK = [name for name, (runtime, _, _) in PROGRAMS.items()
              if runtime not in (None, "GNU OpenMP")]


class Case:
    def __init__(self, build, program, limit, late):
        name, flight, environment = PROGRAMS[program]
        runtime = storm.Runtime(build, name or "GNU OpenMP")
        self.build = build
        self.program = program
        self.what = f"{LATE[limit]}, set late" if late else EARLY[limit]
        self.log = build / "soak/limits.log"
        word = limit.format(build=build)
        self.has_library = not limit.startswith("without=")
        self.environment = {**environment, **runtime.environment, "OMP_WAIT_POLICY": "passive",
                            "OPENBLAS_THREAD_TIMEOUT": "18",
                            "FORKSAFE_LOG": str(self.log) if limit == "fsize=0" else "stderr"}
        stack, early = [], []
        if limit.startswith("stack="):
            stack = ["--from=thread", f"--stack-kb={limit[6:]}"]
        elif late:
            self.environment["FORKSAFE_TEST_LATE"] = word
        else:
            early = [build / "tests/limited", word]
        if name is None:
            program = [build / "tests/plain"]
        elif runtime.path is None:
            program = [build / "tests/omp_forker", "idle", str(FORKS)]
        else:
            program = [build / "tests/blas_forker", *runtime.arguments, f"--flight={flight}",
                       f"--forks={FORKS}", "--n=80", "--or-one-thread=yes", *stack]
        self.command = [str(word) for word in early + program]
        self.preload = "FORKSAFE_TEST_PRELOAD" if early else "LD_PRELOAD"

    def with_library(self):
        return {**self.environment, self.preload: str(self.build / "shim/libforksafe.so")}

    def run(self, environment):
        """Returns what happened, and the outcome."""
        self.log.write_text("")
        outcome = watched.run(self.build, self.command, environment, quiet=QUIET, longest=LONGEST)
        if outcome.status == 77:
            return "skipped", outcome
        refused = ", OpenBLAS may make no thread" if b"pthread_create failed" in outcome.output else ""
        if outcome.stuck:
            return f"hangs{refused}", outcome
        if b"malloc() returned NULL" in outcome.output:
            return "fails, BLIS gets no memory", outcome
        if outcome.status < 0:
            return f"killed by {signal.Signals(-outcome.status).name}", outcome
        if outcome.status > 0:
            return f"fails{refused}", outcome
        log = outcome.output.decode(errors="replace") + self.log.read_text()
        return "exact, one thread" if "computes with one thread" in log else "exact", outcome

    def hangs_without_fork(self):
        """Returns whether the program also hangs if it does not fork, without the library. OpenBLAS asks
        for memory for ever where there is none."""
        forks = f"--forks={FORKS}"
        if forks not in self.command:
            return False
        command = ["--forks=0" if word == forks else word for word in self.command]
        return watched.run(self.build, command, self.environment, most=10).status is None


def is_promised(case, without, with_library):
    """Returns whether this is what the library promises: exact results, or what the program does without
    the library. The library never lets a program hang at a fork, unless its file is not there, or OpenBLAS
    may make no thread (docs/limits.md). Where the program hangs without the library, it gets further with it,
    and may fail at what the limit forbids."""
    if with_library.startswith("exact") or with_library == NO_FORK_NEEDED:
        return True
    if with_library == "hangs":
        return not case.has_library and with_library in without
    forbidden = with_library.startswith("fails") or with_library == "killed by SIGSYS"
    return with_library in without or forbidden and any(r.startswith("hangs") for r in without)


def is_known(limit, with_library):
    """Returns whether this is a limit of the library's own (docs/limits.md): the parent keeps its pool,
    which without the library ends before the fork, and so makes room for the child."""
    return "RLIMIT_NPROC" in limit and (
        with_library.startswith("fails") or with_library.endswith("may make no thread"))


def try_case(case):
    """Returns the row of a case."""
    row = {"program": case.program, "limit": case.what,
           "command": watched.as_shell(case.command, case.with_library())}
    result, outcome = case.run(case.with_library())
    if result == "hangs" and case.hangs_without_fork():
        result = NO_FORK_NEEDED
    without = {case.run(case.environment)[0]}
    if "skipped" in (result, *without):
        return {**row, "without": "", "with": "skipped", "well": True,
                "why": outcome.output.decode(errors="replace").strip()}
    for _ in range(TRIES - 1):
        if is_promised(case, without, result):
            break
        without.add(case.run(case.environment)[0])
    promised = is_promised(case, without, result)
    known = not promised and is_known(case.what, result)
    well = known or promised
    row.update({"without": " or ".join(sorted(without)), "with": result, "known": known, "well": well})
    if not well:
        row["output"] = outcome.output.decode(errors="replace")[-3000:]
        row["verdict"] = outcome.verdict
    return row


def all_cases(build, seed):
    (build / "soak/empty").mkdir(exist_ok=True)
    cases = []
    for program in PROGRAMS:
        try:
            for late, limits in ((False, EARLY), (True, LATE)):
                cases += [Case(build, program, limit, late) for limit in limits
                          if program in WITH_STACK or not limit.startswith("stack=")
                          if program != NO_RUNTIME or not late]
        except FileNotFoundError as missing:
            print(f"skipped: {program}, no {missing}")
    random.Random(seed).shuffle(cases)
    # Each limit once first, then with the other programs.
    seen, first, others = set(), [], []
    for case in cases:
        (others if case.what in seen else first).append(case)
        seen.add(case.what)
    return first + others


def run(build, seed, end):
    for name, why in NOT_TRIED.items():
        print(f"skipped: {name}: {why}")
    cases = all_cases(build, seed)
    rows = []
    for case in cases:
        if rows and time.monotonic() > end:
            break
        rows.append(try_case(case))
        row = rows[-1]
        if row["with"] == "skipped":
            print(f"skipped: {row['limit']}, {row['program']}: {row['why']}", flush=True)
        elif not row["well"]:
            print(f"limits: {row['limit']}, {row['program']}: {row['without']} without, "
                  f"{row['with']} with: {row['output']}\n  to run it again: {row['command']}\n"
                  f"{row['verdict'] or ''}", flush=True)
    bad = [row for row in rows if not row["well"]]
    known = sum(row.get("known", False) for row in rows)
    print(f"limits: {len(rows)} of {len(cases)} cases tried, {known} known limits of the library, "
          f"{len(bad)} not as promised", flush=True)
    return {"well": not bad, "cases": len(cases), "rows": rows}


def report(result):
    rows = result["rows"]
    lines = []
    for what in [*EARLY.values(), *(f"{name}, set late" for name in LATE.values())]:
        counts = {}
        for row in rows:
            if row["limit"] == what:
                text = ("skipped" if row["with"] == "skipped" else
                        f"{row['with']} (without: {row['without']})"
                        + (", known" if row["known"] else "" if row["well"] else ", not as promised"))
                counts[text] = counts.get(text, 0) + 1
        if counts:
            texts = [f"{count} {text}" for text, count in sorted(counts.items())]
            lines.append(f"| {what} | {'; '.join(texts)} |")
    skipped = "\n".join(f"- *{name}* is not tried: {why}." for name, why in NOT_TRIED.items())
    return f"""## Limits

A program forks {FORKS} times under a limit, without the library and with it, in each of these situations: \
{'; '.join(PROGRAMS)}. {len(rows)} of {result['cases']} cases were tried. A limit that is set late is set by the \
program when its thread pools run; the others are set before it starts.

| limit | programs: with the library (without it) |
| --- | --- |
""" + "\n".join(lines) + f"""

- *exact*: all children and all calls in flight had the right bits. *one thread*: and the log said that a \
child computes with one thread.
- *also without a fork*: OpenBLAS asks for memory for ever where there is none.
- *fails*: the program ended with an error, as a fork or a thread was refused.
- *known*: the parent keeps its pool, so the limit leaves no room for the child or for its threads. Where OpenBLAS \
may make no thread in a child, [the child ends or hangs](limits.md#numbers-of-threads).
- A filter that kills can only be judged by what the program does without the library.
{skipped}
"""
