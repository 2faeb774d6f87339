# SPDX-License-Identifier: Apache-2.0
"""Measures what the library costs and saves, in the areas of areas/. Prints a table of ratios with
quartiles, and writes BUILD/bench.json, from which report.py writes the documentation.

    run.py BUILD [--quick] [--only=AREA] [--library=FILE]

Both sides of a ratio are measured in turns, and the order changes. So other work on the machine falls
on both sides. run.sh installs and builds what this script needs, and calls it.
"""
import argparse
import ctypes
import importlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from measure import Bench

AREAS = ("start_up", "command", "dgemm", "fork", "beside_forks", "next_call", "fine_regions", "pools", "repeat",
         "shared_array", "exec_workers", "growth")
PR_SET_CHILD_SUBREAPER = 36


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--quick", action="store_true",
                        help="few repetitions, to see that everything runs")
    parser.add_argument("--only", choices=AREAS, metavar="AREA",
                        help="measure one area: " + ", ".join(AREAS))
    parser.add_argument("--library", help="measure this build of the library")
    return parser.parse_args()


def first_line(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return (done.stdout.splitlines() or [""])[0]


def packages_of(python):
    """Returns the versions of the packages that the workloads use, in the virtual environment."""
    if python is None:
        return {}
    code = ("import importlib.metadata as m; "
            "print(*(f'{d.metadata[\"Name\"]}=={d.version}' for d in m.distributions()))")
    installed = dict(p.split("==") for p in first_line(python, "-s", "-c", code).split())
    return {name: installed[name] for name in ("numpy", "scipy", "obspy", "lightgbm", "joblib")
            if name in installed}


def machine(bench):
    """Returns a description of the machine and the software that the figures belong to."""
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)', Path("/etc/os-release").read_text(), re.M))
    cpu = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.M)
    # OPENBLAS_CORETYPE and similar variables choose OpenBLAS's kernels. The programs get them, too.
    kept = {name: value for name, value in os.environ.items()
            if name.startswith("OPENBLAS_") and not name.endswith("_NUM_THREADS")}
    size = subprocess.run(["size", bench.library], capture_output=True, text=True, check=False)
    return {
        "system": release["PRETTY_NAME"], "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()), "processor": cpu[1] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": first_line(bench.python or sys.executable, "--version"),
        "packages": packages_of(bench.python), "environment": kept,
        "commit": first_line("git", "-C", Path(__file__).parent, "describe", "--always", "--dirty"),
        "text_bytes": int(size.stdout.splitlines()[1].split()[0]) if size.returncode == 0 else None,
    }


def main():
    arguments = parse_arguments()
    # SIGTERM and SIGHUP raise SystemExit, so `finally` ends the process that is measured.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    # As a subreaper, this process becomes the parent of orphans of what is measured, and reaps them.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    output = arguments.build / "bench.json"
    # With --only, the other areas keep the results of an earlier run.
    old = json.loads(output.read_text()) if arguments.only and output.exists() else {}
    found = old.get("areas", {})
    bench = Bench(arguments.build, arguments.quick, arguments.library)
    print(f"{'':<72}   ratio  [quartiles]      measured, against   bar", flush=True)
    wrong = False
    wanted = [name for name in AREAS if arguments.only in (None, name)]
    for number, name in enumerate(wanted, 1):
        print(f"--- [{number}/{len(wanted)}] {name}", flush=True)
        begin, load = time.monotonic(), os.getloadavg()[0]
        bench.rows = []
        importlib.import_module(f"areas.{name}").measure(bench)
        wrong = wrong or any("error" in row for row in bench.rows)
        found[name] = {"rows": bench.rows, "quick": arguments.quick, "machine": machine(bench),
                       "load": load, "seconds": round(time.monotonic() - begin, 1)}
        output.write_text(json.dumps({"areas": found}, indent=1) + "\n")
        print(f"    {found[name]['seconds']:.0f} s", flush=True)
    print(f"written: {output}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
