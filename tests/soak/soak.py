#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the areas of the soak, and keeps their results in BUILD/soak/results.json, from which report.py
writes docs/reliability.md. scripts/soak.sh installs and builds what this script needs, and calls it.

    soak.py BUILD [--minutes N] [--seed S] [AREA...]

The areas share the time. Without AREA, all run but those of BY_NAME_ONLY. The seed determines every random
choice. Exit status: 0 if everything went as promised; 1 if something did not; 2 for bad usage.
"""
import argparse
import ctypes
import datetime
import importlib
import json
import os
import platform
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
AREAS = ("storm", "faults", "fuzz", "limits", "server", "system")
BY_NAME_ONLY = ("system",)
PR_SET_CHILD_SUBREAPER = 36


class Parser(argparse.ArgumentParser):
    def error(self, message):
        sys.stderr.write(f"soak.sh: {message}\n")
        sys.exit(2)


def positive(text):
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def parse_arguments():
    parser = Parser(prog="soak.sh", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--minutes", type=positive, default=10)
    parser.add_argument("--seed", type=positive, default=random.SystemRandom().randrange(1, 2**31))
    parser.add_argument("areas", nargs="*", metavar="AREA")
    arguments = parser.parse_intermixed_args()
    unknown = [area for area in arguments.areas if area not in AREAS]
    if unknown:
        parser.error(f"no such area: {unknown[0]} (known: {', '.join(AREAS)})")
    arguments.areas = arguments.areas or [area for area in AREAS if area not in BY_NAME_ONLY]
    return arguments


def machine():
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)', Path("/etc/os-release").read_text(), re.M))
    cpu = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.M)
    return (f"{release['PRETTY_NAME']}, Linux {platform.release()}, glibc {platform.libc_ver()[1]}, "
            f"{cpu[1] if cpu else platform.machine()}, {len(os.sched_getaffinity(0))} processors")


def commit():
    done = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
                          capture_output=True, text=True, check=False)
    return done.stdout.strip()


def main():
    arguments = parse_arguments()
    # SIGTERM and SIGHUP raise SystemExit, so `finally` ends the process that runs.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    # As a subreaper, this process becomes the parent of orphaned descendants, and reaps them.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    folder = arguments.build.resolve() / "soak"
    folder.mkdir(exist_ok=True)
    results_file = folder / "results.json"
    print(f"seed {arguments.seed}, {arguments.minutes} minutes: {' '.join(arguments.areas)}",
          flush=True)
    begin = time.monotonic()
    well = True
    for index, area in enumerate(arguments.areas):
        end = begin + 60 * arguments.minutes * (index + 1) / len(arguments.areas)
        started, load = time.monotonic(), os.getloadavg()[0]
        result = importlib.import_module(area).run(arguments.build.resolve(), arguments.seed, end)
        result.update(date=datetime.date.today().isoformat(), commit=commit(), machine=machine(),
                      seed=arguments.seed, load=[round(load, 1), round(os.getloadavg()[0], 1)],
                      seconds=round(time.monotonic() - started))
        # Another run may have added an area meanwhile.
        results = json.loads(results_file.read_text()) if results_file.exists() else {}
        results[area] = result
        results_file.write_text(json.dumps(results, indent=1) + "\n")
        well = well and result["well"]
    print(f"written: {results_file}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
