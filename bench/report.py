# SPDX-License-Identifier: Apache-2.0
"""Writes the results of the last run of the benchmarks: docs/performance.md, its pictures, and the part
of README.md between the markers.

    report.py --build BUILD        (sh bench/run.sh --report)

Every figure comes from BUILD/bench.json, and those of other machines from machines.json.
"""
import argparse
import json
from pathlib import Path

import plots
from areas.pools import WORKS
from measure import MOST_REPEATS, NOISY, SPARE_S, is_noisy
from run import AREAS

ROOT = Path(__file__).resolve().parents[1]
MACHINES = ROOT / "bench/machines.json"  # the goals on each machine, as of its last report
BEGIN = "<!-- written by bench/report.py -->"
END = "<!-- end -->"
COMMAND = "sh bench/run.sh"

# For each area: the heading of its section, and the text that says what is compared.
SECTIONS = {
    "pools": ("Whole programs with a pool", """A program computes, runs a `Pool` of two workers and
computes again.

- *pool* is the time from the start of the pool to its end, against `OPENBLAS_NUM_THREADS=1
  OMP_NUM_THREADS=1`.
- *parent afterwards* is a product 1000 x 1000 in the parent, after the pool has ended, against
  stock. Where stock hangs, it is against the parent of spawn before its pool, which runs on stock
  libraries too.
- A variant *hangs* where `forksafe diagnose` says so.
- spawn, forkserver and loky run on stock libraries. *forksafe auto* is `FORKSAFE_CHILD_THREADS=auto`."""),
    "repeat": ("Whether results repeat, and why `auto` is not the default", """OpenBLAS divides some
computations by the number of threads, so their last bits depend on that number. Under `auto` the
number depends on what the siblings do at the moment, and the same program may get other bits the
next time. With one thread in each child, or with the parent's number, it gets the same bits. A
preload that a distribution or a cluster sets for everybody must not change results from run to run.
So `inherit` is the default, and `auto` is for programs that want its speed (above)."""),
    "shared_array": ("100 small tasks on a shared array", """The time from the start of the pool to
its end. A forked worker has the array of 32 MB already. The workers of spawn and forkserver get it
from the initializer. The workers of loky get it from joblib, which maps it into them."""),
    "exec_workers": ("Workers that are programs of their own", """Two workers compute products 600 x 600
at the same time, against the same with one thread each. The start of the workers is not counted.

The workers of spawn and loky are programs of their own, because they execute Python. They are not
forked children, so `FORKSAFE_CHILD_THREADS=auto` does not share the processors among them. Each
computes with all threads, as with stock libraries. The workers that are forked do share. joblib sets
`OPENBLAS_NUM_THREADS` and the like for its workers of loky, so these have one thread each."""),
    "next_call": ("A fork and the next BLAS call", """The time from the start of the fork to the end
of the next dgemm, in the parent or in the child. The dgemm is about the smallest that the pool
still computes. The pool sleeps at the fork.

In the parent, stock must make a new pool. In the child, every variant must.

*The call alone* is the time of that call without a fork before it. The rest is the fork, and the
page faults after it, by which the parent gets its pages back from copy-on-write:

- Half of stock's page faults are in OpenBLAS's buffers. With the library, no page fault is there.
- With many threads, most of the others are in the stacks of the workers and in the table by which a
  call hands out its work. No library can avoid these.
- With more threads than cores, the call alone takes nearly all of the time in the wheels. Then no
  library can make a fork and a call much cheaper.

In the child, the time depends on the core on which the kernel starts the new thread of the pool. If
that is the core of the thread that makes it, the new thread waits for milliseconds, though the other
core is idle (`perf sched timehist`). The same happens in a child without BLAS. If the thread that makes
it sleeps for a moment, so that the kernel places it again, the time stays the same. After a call, the
workers of the wheels spin for some 110 ms. A child that makes its first call meanwhile has a core less,
as a child of any program whose parent goes on computing."""),
    "fine_regions": ("Fine-grained OpenMP regions", """Regions of 5 and 15 us under GNU OpenMP, with
as many threads as processors. The figure of a process is its best round; the table has the median
over processes.

GNU OpenMP counts the threads of its teams in one variable of the process (`gomp_managed_threads`).
A fork copies the count, and the child's own team is added to it. If the count is larger than the
number of processors, GNU OpenMP lets its threads sleep at once, instead of spinning until the next
region. The variable has no name outside of the runtime, and the functions that lower it wait for
the threads of the pool, which a child does not have. So regions of some microseconds are slower in
children, also under `OMP_WAIT_POLICY=active`. Long regions are not."""),
    "fork": ("fork() against _Fork()", """Both in one process with the library, in turns. `_Fork()`
runs no fork handlers; with calls in flight it copies memory that these calls are changing. *no
handlers at all* is the same pair without the library and with every registration dropped, which
shows glibc's own part. The difference is some microseconds, most of them page faults after the fork.
So the ratio is larger where `_Fork()` itself is fast. *fork / fork without handlers* divides the ratio
with the library by that without handlers.

`perf record -e page-faults -c 1 -d` names the pages. glibc's `fork()` itself has six page faults in the
parent: two in stacks, the others in the variables of malloc, stdio and the handlers' list. With the library
there is a seventh, in the page of its thread-local variables. glibc's thread descriptor is in the same
page, so without the library the next cancellation point, such as `waitpid`, has this fault."""),
    "beside_forks": ("A thread that computes beside one that forks", """A thread calls dgemm all the
time, and another one forks a child every 5 ms and waits for it, as a job launcher does. How many times as
long a call takes as without the forks: with the library, and without the library and any other fork
handler. Most of it is the kernel's: a fork makes the memory read-only, so each first write faults. In an
OpenMP build `fork()` waits for the calls that are inside, so there are fewer forks in the same time. Stock
libraries can't be compared: OpenBLAS on its own threads hangs."""),
    "growth": ("How the cost of a fork grows", """`fork()` against `_Fork()`, in one process with
the library. The cost of `_Fork()` grows too, because the kernel copies more mappings and page
tables. The last row of each group divides the ratio with the most by the ratio with the fewest."""),
    "dgemm": ("dgemm in the parent", """What the doors cost, by the size of the product and the
number of calling threads, against stock. The rows with `NUM_THREADS=1` show what a program loses if
it sets the number of threads to one."""),
    "start_up": ("Start-up", """A program without BLAS, and a program that imports numpy, against an
empty preload."""),
    "command": ("The command", """How much `forksafe` adds to the start of a program, and how long
it takes to look at a large process."""),
}


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines)


def quartiles(found):
    return f"{found['q1']:.3f} to {found['q3']:.3f}"


def bar_text(row):
    return f"{'<' if row.get('below') else '<='} {row['bar']:g}{' ms' if 'ms' in row else ''}"


def bar_of(row):
    return "" if row.get("bar") is None else f"{bar_text(row)}, {row['verdict']}"


def row_cells(row):
    """Returns the cells of a row: what, median, quartiles, measured, against, bar."""
    if "error" in row:
        return [row["what"], f"could not be measured: {row['error']}", "", "", "", ""]
    if "skipped" in row:
        return [row["what"], f"skipped: {row['skipped']}", "", "", "", ""]
    if "hangs" in row:
        ours = f"{row['measured']:.4g} {row['unit']}" if "measured" in row else ""
        return [row["what"], "hangs", row["hangs"], ours, "", ""]
    if "count" in row:
        return [row["what"], f"{row['count']} of {row['of']}", "", "", "", ""]
    if "ms" in row:
        return [row["what"], f"{row['ms']['median']:.2f} ms", quartiles(row["ms"]), "", "",
                bar_of(row)]
    # A ratio of two ratios has no unit.
    unit = "" if row["unit"] == "x" else f" {row['unit']}"
    return [row["what"], f"{row['ratio']['median']:.3f}", quartiles(row["ratio"]),
            f"{row['measured']:.4g}{unit}", f"{row['against']:.4g}{unit}", bar_of(row)]


def rows_table(rows):
    return table(["", "ratio", "quartiles", "measured", "against", "bar"], map(row_cells, rows))


def machine_text(area):
    m = area["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in m["packages"].items())
    kept = ", ".join(f"{k}={v}" for k, v in m["environment"].items()) or "none"
    return (f"{m['system']}, {m['libc']}, Linux {m['kernel']}; {m['processor']}, {m['cores']} cores; "
            f"{m['python']}; {packages}. Set in the environment: {kept}.")


def warnings(areas):
    """Returns what the reader must know before the figures."""
    text = []
    quick = [name for name, area in areas.items() if area["quick"]]
    if quick:
        text.append(f"**From a quick run with few repetitions, which tells no ratio: "
                    f"{', '.join(quick)}.**")
    complaints = {row["complaint"] for area in areas.values() for row in area["rows"]
                  if row.get("complaint")}
    if complaints:
        text.append(f"**The library that was measured said: {'; '.join(sorted(complaints))}**")
    return "".join(f"{line}\n\n" for line in text)


def bars_table(areas):
    rows = [row for area in areas.values() for row in area["rows"] if row.get("bar") is not None]
    return rows_table(sorted(rows, key=lambda row: row["verdict"] == "ok"))


def noise_text(areas):
    """Returns how many ratios vary so much from round to round that they tell little."""
    wide = []
    for name, area in areas.items():
        found = [row["ratio"] for row in area["rows"] if "ratio" in row]
        vary = sum(map(is_noisy, found))
        if vary:
            wide.append(f"{name} {vary} of {len(found)}")
    if not wide:
        return f"Noise: no ratio has quartiles that are more than {NOISY:.0%} of it apart.\n"
    return (f"Noise: these ratios have quartiles that are more than {NOISY:.0%} of the ratio apart: "
            f"{', '.join(wide)}.\n")


def machine_name(machine):
    return f"{machine['processor']}, {machine['cores']} cores, {machine['system']}"


def goal_cell(row):
    """Returns the median and the verdict, as the table of all machines has them."""
    if "ratio" in row:
        return f"{row['ratio']['median']:.3f}, {row['verdict']}"
    return f"{row['ms']['median']:.2f} ms, {row['verdict']}"


def keep_goals(areas):
    """Keeps the goals of this machine in MACHINES, and returns those of all machines: a dictionary of
    {"commit": text, "goals": {what: cell}} by name. This machine comes first."""
    some = next(iter(areas.values()))["machine"]
    goals = {row["what"]: goal_cell(row) for area in areas.values() for row in area["rows"]
             if not area["quick"] and row.get("bar") is not None}
    own = machine_name(some)
    kept = json.loads(MACHINES.read_text()) if MACHINES.exists() else {}
    kept[own] = {"commit": some["commit"], "goals": goals}
    MACHINES.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    return {own: kept[own], **{name: kept[name] for name in kept if name != own}}


def machines_section(areas, found):
    if len(found) == 1:
        return ""
    bars = {row["what"]: bar_text(row) for area in areas.values() for row in area["rows"]
            if row.get("bar") is not None}
    names = [f"{name} ({entry['commit']})" for name, entry in found.items()]
    rows = [[what, bar, *(entry["goals"].get(what, "") for entry in found.values())]
            for what, bar in bars.items()]
    return ("## The goals on each machine\n\nThe last run of each, with the commit of the library. The rest of "
            f"this page is about the first machine.\n\n{table(['', 'bar', *names], rows)}\n")


def document(areas, goals):
    machines = {}
    for name, area in areas.items():
        machines.setdefault(machine_text(area), []).append(name)
    some = next(iter(areas.values()))["machine"]
    text = [f"""<!-- Written by bench/report.py from the results of the last run: not to be edited by hand. -->
# Performance

{warnings(areas)}Made by `{COMMAND} && {COMMAND} --report`, in parts by `{COMMAND} --only=AREA`. The
library is that of commit {some['commit']}.

## In short

{in_short(areas)}

## Method

- All ratios are within one run. The variants take turns, in another order each round, so other load
  on the machine falls on all of them. The ratio is the median over the rounds, with its quartiles.
- While the quartiles of a ratio with a bar are more than {NOISY:.0%} of it apart, its rounds are repeated: up to
  {MOST_REPEATS} times as many, and for {SPARE_S // 60} minutes in a whole run.
- *measured* and *against* are medians of absolute times on this machine.
- Stock runs with an empty preload, so the cost of a preload itself is on both sides.
- The caller's `LD_PRELOAD`, `*_NUM_THREADS`, `OMP_*` and the like are removed. Variables that
  choose OpenBLAS's kernels stay, and are named below.
- Google Benchmark times dgemm, hyperfine times whole commands. `fork()` and `_Fork()` run in pairs
  within one process, because the layout of memory differs from process to process.
- A bar is a goal for the ratio. *OVER*: the goal is missed. *OVER (spread)*: the median misses it,
  but a quarter of the rounds meets it.

## The machine
"""]
    for machine, names in machines.items():
        which = "" if len(machines) == 1 else f"{', '.join(names)}: "
        text.append(f"{which}{machine}\n")
    loads = ", ".join(f"{name} {area['load']:.1f}" for name, area in areas.items())
    seconds = sum(area["seconds"] for area in areas.values())
    text.append(f"Load when each area began; the area before has raised it: {loads}. All areas took "
                f"{seconds / 60:.0f} minutes.\n")
    text.append(noise_text(areas))
    text.append("## Goals\n\nThe sections below say why some are missed.\n\n"
                f"{bars_table(areas)}\n")
    others = machines_section(areas, goals)
    if others:
        text.append(others)
    for name, (heading, what) in SECTIONS.items():
        text.append(f"## {heading}\n\n{what}\n\n`{COMMAND} --only={name}`\n")
        if name not in areas:
            text.append("Not measured in the last run.\n")
            continue
        if picture_file(name).exists():
            text.append(f"![{heading}]({picture_file(name).name})\n")
        text.append(rows_table(areas[name]["rows"]) + "\n")
    text.append("""## What the figures do not say

- They are of one machine with few cores. If a pool has more threads than cores, OpenBLAS's threads
  spend most of a call spinning for each other, with the library and without it.
- A fork right after a call, or with calls in flight, competes with spinning threads for the cores.
  So the time of such a fork varies with what the scheduler does.
- With the pool alive, a fork also copies the mappings of the stacks of its threads. Stock has ended
  the threads by then. So a program that forks all the time, and has a large pool that it no longer
  uses, pays for the pool and saves nothing.
- Memory is not measured: neither the private pages of a child, nor the pages that the parent copies
  on its next writes.
- The time of a pool depends on its tasks. With tasks of seconds, the start of the workers does not
  matter.
- Two workers fill two cores. With fewer workers than cores, one thread for each worker leaves cores
  idle. No pool here shows that.
- spawn, forkserver and loky import the packages again in each worker. The time of an import depends
  on the disk and its cache.
- No figure here says that a result is right, or that nothing hangs. The tests do
  ([compatibility.md](compatibility.md)).
""")
    return "\n".join(text)


def picture_file(name):
    return ROOT / "docs" / f"performance-{name.replace('_', '-')}.svg"


def draw(areas):
    """Draws the picture of each area that has one."""
    for name, area in areas.items():
        rows = [row for row in area["rows"] if "ratio" in row or "hangs" in row]
        draw_one = getattr(plots, name, None)
        if draw_one is None or not any("ratio" in row for row in rows):
            continue
        if name == "pools":
            draw_one(rows, WORKS, picture_file(name))
        else:
            draw_one(rows, picture_file(name))


def find(area, **wanted):
    """Returns the first row with these values, or None."""
    return next((row for row in (area or {"rows": []})["rows"]
                 if all(row.get(key) == value for key, value in wanted.items())), None)


IN_SHORT_VARIANTS = {
    "stock": "stock",
    "NUM_THREADS=1": "`OPENBLAS_NUM_THREADS=1`",
    "spawn": "spawn",
    "loky": "loky",
    "forksafe": "**forksafe**",
    "forksafe auto": "**forksafe, `FORKSAFE_CHILD_THREADS=auto`**",
}


def in_short_cell(area, work, variant, part, form):
    row = find(area, work=work, variant=variant, part=part)
    if row:
        return form.format(row["measured"])
    row = find(area, work=work, variant=variant)
    return "hangs" if row and "hangs" in row else ""


def in_short_table(areas):
    pools = areas.get("pools")
    rows = [[name, in_short_cell(pools, "detrend", variant, "pool", "{:.2f} s"),
             in_short_cell(pools, "products600", variant, "pool", "{:.2f} s"),
             in_short_cell(pools, "lightgbm", variant, "pool", "{:.2f} s"),
             in_short_cell(pools, "products600", variant, "parent", "{:.1f} ms")]
            for variant, name in IN_SHORT_VARIANTS.items()]
    return table(["", f"Pool(2): {WORKS['detrend']}", WORKS["products600"], WORKS["lightgbm"],
                  "then in the parent: a product 1000 x 1000"], rows)


def facts(areas):
    """Returns the facts in short, one sentence each. The README has the first four."""
    found = []
    shared = [find(areas.get("shared_array"), variant=v) for v in ("spawn", "forkserver", "loky")]
    if all(row and "ratio" in row for row in shared):
        times = [f"{1 / row['ratio']['median']:.0f}" for row in shared]
        found.append(f"100 small tasks on an array of 32 MB: {times[0]}, {times[1]} and {times[2]} "
                     "times as fast as with spawn, forkserver and loky.")
    start = find(areas.get("start_up"), program="/bin/true", variant="forksafe")
    if start:
        found.append(f"The start of `/bin/true`: {start['ratio']['median']:.2f} times that with an "
                     "empty preload.")
    fork = find(areas.get("fork"), build="Debian", situation="sleeping pool")
    if fork:
        found.append(f"`fork()`: {fork['ratio']['median']:.2f} times `_Fork()` "
                     f"({quartiles(fork['ratio'])}).")
    small = find(areas.get("dgemm"), build="Debian", n=64, callers=1)
    if small:
        found.append(f"dgemm n = 64: {small['ratio']['median']:.3f} times stock "
                     f"({quartiles(small['ratio'])}).")
    own, openmp = (find(areas.get("fork"), build=build, situation="3 calls in flight")
                   for build in ("Debian", "Debian OpenMP"))
    if own and openmp:
        found.append(f"A fork with three calls in flight does not wait in a build on its own threads "
                     f"({own['ratio']['median']:.2f} times `_Fork()`). In an OpenMP build it waits for "
                     f"the calls that are inside ({openmp['measured'] / 1000:.0f} ms).")
    command = [find(areas.get("command"), subcommand=c) for c in ("run", "list", "diagnose")]
    if all(row and "ms" in row for row in command):
        more, listed, diagnosed = (row["ms"]["median"] for row in command)
        found.append(f"`forksafe true` takes {more:.1f} ms more than `env LD_PRELOAD=... true`. "
                     f"`forksafe list` and `forksafe diagnose` of a process with 200 threads and 300 "
                     f"loaded objects take {listed:.0f} and {diagnosed:.0f} ms.")
    text_bytes = next(iter(areas.values()))["machine"]["text_bytes"]
    if text_bytes:
        found.append(f"The library is {text_bytes / 1000:.0f} kB of code and constants.")
    return found


def bullets(sentences):
    return "\n".join(f"- {sentence}" for sentence in sentences)


def in_short(areas):
    return f"""A program computes, runs a `Pool` of two workers, and computes again. With stock
libraries the children fight over the cores, or hang. With one thread for all, the parent is slow.
spawn and loky start workers from nothing.

![A pool, and the parent afterwards](performance-in-short.svg)

{in_short_table(areas)}

{bullets(facts(areas))}"""


def readme_part(areas):
    some = next(iter(areas.values()))["machine"]
    return f"""{warnings(areas)}![A pool, and the parent afterwards](docs/performance-in-short.svg)

Measured by `{COMMAND}` on {some['cores']} cores, {some['system']}. All figures are in
[docs/performance.md](docs/performance.md).

{bullets(facts(areas)[:4])}"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, required=True)
    found = json.loads((parser.parse_args().build / "bench.json").read_text())["areas"]
    areas = {name: found[name] for name in AREAS if name in found}
    draw(areas)
    if "pools" in areas:
        plots.in_short([row for row in areas["pools"]["rows"] if "work" in row], WORKS["products600"],
                       ROOT / "docs/performance-in-short.svg")
    (ROOT / "docs/performance.md").write_text(document(areas, keep_goals(areas)))
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(f"{before}{BEGIN}\n{readme_part(areas)}\n{END}{after}")


if __name__ == "__main__":
    main()
