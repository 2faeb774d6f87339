# SPDX-License-Identifier: Apache-2.0
"""Measures what the library costs and saves, in the areas of areas/: prints a table of ratios with
quartiles, and writes BUILD/bench.json, from which report.py writes the documentation.

    run.py BUILD [--quick] [--only=AREA] [--library=FILE]

Everything is measured in pairs within one run, in swapped order: other work on the machine falls on
both sides. Called by run.sh, which installs and builds what this needs.
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

AREAS = ("start_up", "command", "dgemm", "fork", "next_call", "fine_regions", "pools", "repeat",
         "shared_array", "growth")
PR_SET_CHILD_SUBREAPER = 36


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--quick", action="store_true",
                        help="few repetitions: does all of it run")
    parser.add_argument("--only", choices=AREAS, metavar="AREA", help=", ".join(AREAS))
    parser.add_argument("--library", help="another build of the library")
    return parser.parse_args()


def first_line(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return (done.stdout.splitlines() or [""])[0]


def packages_of(python):
    """The packages of the virtual environment that the workloads use."""
    if python is None:
        return {}
    code = ("import importlib.metadata as m; "
            "print(*(f'{d.metadata[\"Name\"]}=={d.version}' for d in m.distributions()))")
    installed = dict(p.split("==") for p in first_line(python, "-s", "-c", code).split())
    return {name: installed[name] for name in ("numpy", "scipy", "obspy", "lightgbm", "joblib")
            if name in installed}


def machine(bench):
    """What the figures belong to."""
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)', Path("/etc/os-release").read_text(), re.M))
    cpu = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.M)
    # OPENBLAS_CORETYPE and the like choose the kernels; they stay as they are.
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
    # An end by SIGTERM or SIGHUP goes through `finally` too: nothing that is measured is left behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    # Orphans of what is measured come to us, so that they can be reaped.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    output = arguments.build / "bench.json"
    # With --only, the other areas keep what an earlier run has found.
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
