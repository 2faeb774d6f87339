# SPDX-License-Identifier: Apache-2.0
"""The command: how much time `forksafe` adds to the start of a program, and how long `list` and
`diagnose` take for a large process and for many."""
import json
import shutil
import statistics
import subprocess
import tempfile

from measure import run_process


def hyperfine(bench, *commands, runs):
    """Returns the times of each run of each command, in ms. Exit statuses are ignored, because diagnose
    ends with 1 if a process is stuck."""
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as results:
        run_process(["hyperfine", "-N", "--warmup=1", f"--runs={runs}", "--ignore-failure",
                     "--style=none", "--export-json", results.name, *commands],
                    bench.environment("stock"))
        return [[1000 * time for time in result["times"]]
                for result in json.load(results)["results"]]


def wrapper(bench):
    what = "forksafe true, more than env LD_PRELOAD=... true"
    with bench.cell(what):
        # Short turns, so other work on the machine falls on both.
        rounds, runs = (3, 10) if bench.quick else (20, 50)
        more = []
        for _ in range(rounds):
            ours, plain = hyperfine(bench, f"{bench.command} true",
                                    f"env LD_PRELOAD={bench.library} true", runs=runs)
            more.append(statistics.median(ours) - statistics.median(plain))
        bench.add_ms(what, more, 2, subcommand="run")


def crowd(bench, subcommand, what, most_ms, *options):
    what = f"forksafe {subcommand}: {what}"
    with bench.cell(what), tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [bench.programs / "crowd", f"--folder={folder}",
             f"--object={bench.preload('loaded_object')}", *options], stdout=subprocess.PIPE, text=True)
        try:
            if process.stdout.readline() != "ready\n":
                raise OSError("crowd did not start")
            times, = hyperfine(bench, f"{bench.command} {subcommand} {process.pid}",
                               runs=5 if bench.quick else 20)
        finally:
            process.kill()
            process.communicate()
        bench.add_ms(what, times, most_ms, subcommand=subcommand)


def measure(bench):
    if not shutil.which("hyperfine"):
        bench.skip("the command", "no hyperfine: apt-get install hyperfine")
        return
    wrapper(bench)
    for subcommand in ("list", "diagnose"):
        crowd(bench, subcommand, "200 threads, 300 objects", 1000)
    crowd(bench, "diagnose --children", "200 children of 8 threads, 300 objects", 2000,
          "--threads=8", "--children=200")
