# SPDX-License-Identifier: Apache-2.0
"""Storms of forks: runs tests/programs/storm.cpp in situations that the seed chooses. First it runs
without the library, where the program must hang or fail. Then it runs with the library."""
import dataclasses
import glob
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import time

import watched

# The most that the parent may grow between its 1000th fork and its end. It may grow at all because glibc
# keeps the stacks and the heaps of threads that have ended. Descriptors and loaded objects must not grow.
# OpenBLAS keeps a buffer for each call that ran at the same time as others, and glibc an arena. That grows
# until all threads that fork have computed at once (200 threads: 62 to 105 MB in 7500 forks, and no more in
# 20000).
MOST_RSS_KB = 4096
MOST_RSS_KB_PER_THREAD = 256
MOST_MAPPINGS = 16

LIBRARIES = f"/usr/lib/{platform.machine()}-linux-gnu"

BUILDS = {  # name: (file, prefix and suffix of its functions, kind)
    "OpenBLAS, Debian": ("lib:openblas-pthread/libopenblas.so.0", "", "", "threads"),
    "OpenBLAS, numpy 1.26": ("numpy-1.26/numpy.libs/libopenblas*.so", "", "64_", "threads"),
    "OpenBLAS, numpy 2.2": ("numpy-2.2/numpy.libs/lib*openblas*.so", "scipy_", "64_", "threads"),
    "OpenBLAS, numpy 2.4": ("numpy-2.4/numpy.libs/lib*openblas*.so", "scipy_", "64_", "threads"),
    "OpenBLAS 0.3.34": ("openblas64/scipy_openblas64/lib/lib*openblas*.so", "scipy_", "64_",
                        "threads"),
    "OpenBLAS on OpenMP, Debian": ("lib:openblas-openmp/libopenblas.so.0", "", "", "openmp"),
    "GNU OpenMP": (None, "", "", "regions"),
    "BLIS, OpenMP": ("lib:blis-openmp/libblis.so.?", "", "", "blis-openmp"),
    "BLIS, pthreads": ("lib:blis-pthread/libblis.so.?", "", "", "blis"),
}


class Runtime:
    """A library that is installed here, and the arguments by which the program uses it."""

    def __init__(self, build, name):
        pattern, prefix, suffix, self.kind = BUILDS[name]
        self.name = name
        self.path = None
        self.arguments = ["--regions=yes"] if self.kind == "regions" else []
        self.environment = {"OMP_NUM_THREADS": "2", "BLIS_NUM_THREADS": "2"}
        if pattern is None:
            return
        full = (LIBRARIES + "/" + pattern[4:] if pattern.startswith("lib:")
                else f"{build}/wheels/{pattern}")
        found = sorted(glob.glob(full))
        if not found:
            raise FileNotFoundError(full)
        self.path = found[0]
        self.arguments = [f"--blas={self.path}", f"--prefix={prefix}", f"--suffix={suffix}"]
        self.environment["LD_LIBRARY_PATH"] = os.path.dirname(self.path)


def runtimes(build):
    found = []
    for name in BUILDS:
        try:
            found.append(Runtime(build, name))
        except FileNotFoundError as missing:
            print(f"skipped: {name}, no {missing}")
    return found


@dataclasses.dataclass
class Run:
    """One run of the program."""
    runtime: Runtime
    environment: dict
    arguments: list
    what: str
    one_processor: bool = False
    overload: bool = False

    def command(self, build, seconds):
        pinned = ["taskset", "-c", "0"] if self.one_processor else []
        return [*pinned, str(build / "tests/storm"), *self.arguments, f"--seconds={seconds}"]


def draw(dice, build, all_runtimes, large):
    """Returns a run in a situation that the dice choose."""
    runtime = dice.choice(all_runtimes)
    environment = dict(runtime.environment)
    one_processor = dice.random() < 0.5
    overload = dice.random() < 0.5
    flight = dice.choice((0, 1, 3))
    arguments = [f"--seed={dice.randrange(1, 10**6)}"]
    words = ["idle" if flight == 0 else f"{flight} in flight"]
    blis = runtime.kind.startswith("blis")
    if blis:
        # BLIS's threads spin at barriers and never yield. With more threads than processors, a
        # child may take seconds.
        threads = 1 if flight or one_processor or overload else 2
        environment.update(OMP_NUM_THREADS=str(threads), BLIS_NUM_THREADS=str(threads))
        arguments += ["--operations=gemm:64", f"--threads={threads}",
                      "--children-set-threads=no"]
    elif runtime.kind != "regions" and dice.random() < 0.25:
        arguments.append("--regions=yes")
        words.append("regions too")
    # With 18, idle workers soon sleep. With 26, the default, they spin for about 20 ms first.
    environment["OPENBLAS_THREAD_TIMEOUT"] = dice.choice(("18", "26"))
    if runtime.kind in ("openmp", "regions", "blis-openmp") or "--regions=yes" in arguments:
        environment["OMP_WAIT_POLICY"] = dice.choice(("passive", "passive", "active"))
    # With the default of 1000 ms, a child on a busy machine may compute with one thread.
    mode = dice.choice(("exact", "exact", "exact", "impatient", "auto"))
    environment["FORKSAFE_WAIT_MS"] = "20000"
    if mode == "impatient":
        environment["FORKSAFE_WAIT_MS"] = "1"
    elif mode == "auto":
        environment["FORKSAFE_CHILD_THREADS"] = "auto"
    if mode != "exact":
        arguments.append("--accept=fewer")
        words.append(mode)
    special = dice.choice(("", "", "", "chain", "crowd", "threads", "per-millisecond"))
    size = 1000 if large else 100
    arguments.append("--forks=3000")
    if special == "chain":
        arguments += [f"--chain={size}"]
        words.append(f"{size} generations")
    elif special == "crowd":
        arguments += [f"--crowd={size}"]
        words.append(f"{size} children at once")
    elif special == "threads":
        arguments += [f"--forking-threads={size // 5}"]
        words.append(f"{size // 5} threads fork")
    elif special == "per-millisecond":
        flight = 4
        arguments += ["--pause-us=1000"]
        words[0] = "4 in flight"
        words.append("a fork per millisecond")
    else:
        source = dice.choice(("main", "thread", "both"))
        words.append("forks from " + {"main": "main", "thread": "another thread",
                                      "both": "two threads"}[source])
        arguments += [f"--forking-threads={2 if source == 'both' else 1}",
                      "--from=" + ("thread" if source == "thread" else "main")]
        plugins = [f"{LIBRARIES}/libgomp.so.1"]
        if runtime.path and not blis:
            plugins.append(runtime.path)
        arguments.append(f"--plugin={copy_of(build, dice.choice(plugins))}")
        if flight == 0 and source == "main" and not blis and dice.random() < 0.5:
            arguments.append("--parent-sets-threads=yes")
            words.append("the parent sets numbers")
        elif dice.random() < 0.25:
            arguments.append("--thread-churn=yes")
            words.append("threads come and go")
        # If the parent is loading a library at the fork, that library's state is undefined in the
        # child. So either the parent loads libraries or its children do, never both.
        loads = dice.choice(("", "", "load-churn", "children-load"))
        if loads:
            arguments.append(f"--{loads}=yes")
            words.append("libraries come and go" if loads == "load-churn"
                         else "children load")
    arguments.append(f"--flight={flight}")
    return Run(runtime, environment, [*runtime.arguments, *arguments], ", ".join(words), one_processor,
               overload)


def million(dice, all_runtimes):
    """Returns a run with a million forks of one process, as many a second as it can."""
    # On OpenMP each fork waits for the call in flight.
    suitable = [each for each in all_runtimes if each.kind == "threads"]
    runtime = dice.choice(suitable or all_runtimes)
    return Run(runtime, {**runtime.environment, "FORKSAFE_WAIT_MS": "20000"},
               [*runtime.arguments, f"--seed={dice.randrange(1, 10**6)}", "--forks=1000000",
                "--pause-us=0", "--flight=1"], "1 in flight, a million forks")


def copy_of(build, library):
    """Returns a copy of the library. The dynamic linker treats it as a different library."""
    copy = build / "soak" / ("copy-" + os.path.basename(library))
    if not copy.exists():
        shutil.copyfile(library, copy)
    return copy


def without(build, runtime):
    """Runs the program without the library, where a fork must break it. Returns what happened."""
    command = [str(build / "tests/storm"), *runtime.arguments, "--forks=200", "--flight=1",
               "--operations=gemm:150", "--children-set-threads=no"]
    outcome = watched.run(build, command, runtime.environment, quiet=1, longest=1000, most=120)
    if outcome.stuck:
        codes = {d["code"] for d in verdicts(outcome.verdict) if d.get("stuck")}
        return "hangs" + (f" ({', '.join(sorted(codes))})" if codes else "")
    if outcome.status is None:
        return "runs"  # for two minutes: it did not hang
    if outcome.status == 2:
        sys.exit(f"soak.sh: wrong usage of storm: {outcome.output.decode(errors='replace')}")
    return "passes" if outcome.status == 0 else "crashes" if outcome.status < 0 else "fails"


def verdicts(text):
    try:
        read = json.loads(text)
    except json.JSONDecodeError:
        return []
    return read.get("processes", [read]) if isinstance(read, dict) else read


def start_overload(build):
    return subprocess.Popen([build / "tests/storm", f"--spin={8 * len(os.sched_getaffinity(0))}"])


def grown(early, late, arguments):
    """Returns what grew, as a text; empty if nothing did."""
    threads = [int(word.split("=")[1]) for word in arguments if word.startswith("--forking-threads=")]
    most_rss_kb = MOST_RSS_KB + MOST_RSS_KB_PER_THREAD * max(threads, default=1)
    limits = {"rss_kb": most_rss_kb, "mappings": MOST_MAPPINGS, "descriptors": 0, "objects": 0}
    return ", ".join(f"{name} {early[name]} to {late[name]}" for name, limit in limits.items()
                     if late[name] - early[name] > limit)


def execute(build, chosen, seconds, number):
    """Returns the row of a run."""
    environment = {**chosen.environment, "LD_PRELOAD": str(build / "shim/libforksafe.so")}
    command = chosen.command(build, seconds)
    spinners = start_overload(build) if chosen.overload else None
    try:
        outcome = watched.run(build, command, environment)
    finally:
        if spinners:
            spinners.kill()
            spinners.wait()
    row = {"runtime": chosen.runtime.name, "what": chosen.what, "forks": outcome.dots,
           "one_processor": chosen.one_processor, "overload": chosen.overload,
           "seconds": round(outcome.seconds, 1), "calls": 0,
           "command": watched.as_shell(command, environment)}
    lines = outcome.output.decode(errors="replace").strip().splitlines()
    last = lines[-1] if lines else ""
    if outcome.stuck:
        saved = build / "soak" / f"hang-{number}.json"
        saved.write_text(outcome.verdict or "")
        row.update(result="hang", verdict=str(saved))
    elif outcome.status != 0 or not last.startswith("{"):
        row.update(result="wrong", output=lines[-5:], status=outcome.status)
    else:
        facts = json.loads(last)
        row["calls"] = facts["calls"]
        row["result"] = "exact"
        if "early" in facts:
            row.update(early=facts["early"], late=facts["late"])
            growth = grown(facts["early"], facts["late"], chosen.arguments)
            if growth:
                row.update(result="grown", growth=growth)
    return row


def show(number, row):
    where = ", one processor" if row["one_processor"] else ""
    where += ", overload" if row["overload"] else ""
    print(f"storm {number}: {row['runtime']}: {row['what']}{where}: {row['forks']} forks, "
          f"{row['seconds']:.0f} s, {row['result']}", flush=True)
    if row["result"] != "exact":
        for key in ("verdict", "growth", "status", "output"):
            if key in row:
                print(f"  {key}: {row[key]}")
        print(f"  to run it again: {row['command']}", flush=True)


def run(build, seed, end):
    dice = random.Random(seed)
    found = runtimes(build)
    if not found:
        sys.exit("soak.sh: no runtime to test")
    total = end - time.monotonic()
    large = total > 20 * 60
    controls, rows = {}, []
    # BLIS on pthreads has no pool. A fork breaks it only if a lock is held at that moment, which is too
    # rare to see here.
    needed = [r for r in found if r.kind != "blis"]
    for runtime in needed if total >= 300 else [dice.choice(needed)]:
        controls[runtime.name] = without(build, runtime)
        print(f"without the library: {runtime.name}: {controls[runtime.name]}", flush=True)
    usual = min(120, total / 10)
    chosen, longest = ((million(dice, found), total / 2) if large
                       else (draw(dice, build, found, large), usual))
    while not rows or time.monotonic() < end:
        seconds = max(3, round(min(longest, end - time.monotonic())))
        rows.append(execute(build, chosen, seconds, len(rows) + 1))
        show(len(rows), rows[-1])
        chosen, longest = draw(dice, build, found, large), usual
    well = (all(row["result"] == "exact" for row in rows)
            and not {"passes", "runs"} & set(controls.values()))
    print(f"storm: {sum(row['forks'] for row in rows)} forks in {len(rows)} runs, "
          f"{sum(row['result'] == 'hang' for row in rows)} hangs, "
          f"{sum(row['result'] in ('wrong', 'grown') for row in rows)} wrong", flush=True)
    return {"well": well, "without": controls, "runs": rows}


def report(result):
    rows = result["runs"]
    lines = []
    for name in BUILDS:
        own = [row for row in rows if row["runtime"] == name]
        if not own:
            continue
        forks = sum(row["forks"] for row in own)
        bad = [row for row in own if row["result"] != "exact"]
        lines.append(
            f"| {name} | {result['without'].get(name, '')} | {len(own)} | {forks} | "
            f"{sum(row['calls'] for row in own)} | "
            f"{sum(row['result'] == 'hang' for row in own)} | {len(bad)} |")
    measured = [row for row in rows if "early" in row]
    most = {key: max((row["late"][key] - row["early"][key] for row in measured), default=0)
            for key in ("rss_kb", "descriptors", "mappings", "objects")}
    forks = sum(row["forks"] for row in rows)
    seconds = sum(row["seconds"] for row in rows)
    bad = "".join(f"- {row['runtime']}, {row['what']}: {row['result']}\n" for row in rows
                  if row["result"] != "exact")
    return f"""## Storms of forks

{forks} forks in {len(rows)} runs, {forks / max(seconds, 1):.0f} a second: \
{sum(row['result'] == 'hang' for row in rows)} hangs. Each child, each call in flight and each thread that \
forks compares its results to the bit. In {sum(row['one_processor'] for row in rows)} runs the program had \
one processor, in {sum(row['overload'] for row in rows)} it shared each processor with eight busy threads.

| runtime | without | runs | forks | calls in flight | hangs | hangs, inexact results or growth |
| --- | --- | --- | --- | --- | --- | --- |
""" + "\n".join(lines) + f"""

- *without*: what the same program did without the library, with one call in flight; in brackets the \
verdict of `forksafe diagnose`. A short run tries only one runtime without the library.
- *forks*: children that ended well. Children of children are not counted.
- *growth*: {len(measured)} runs were long enough to measure the parent twice. At most it grew by \
{most['rss_kb']} kB of memory (VmRSS), {most['mappings']} mappings, {most['descriptors']} descriptors and \
{most['objects']} loaded objects.
{bad}"""
