# SPDX-License-Identifier: Apache-2.0
"""A whole system that is preloaded: real programs in a tree of Debian, with the library in
/etc/ld.so.preload and without it. system/cases.toml has the programs, system/inside.py runs them."""
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import watched

ROOT = Path(__file__).resolve().parents[2]


def run(build, seed, end):
    del seed  # nothing here is random
    if os.geteuid() != 0:
        print("system: skipped, debootstrap and chroot need root")
        return {"well": True, "cases": 0, "rows": []}
    seconds = max(1, round(end - time.monotonic()))
    results = build / "soak/system/results.json"
    process = subprocess.Popen(["sh", str(ROOT / "scripts/soak_system.sh"), str(seconds)],
                               env={**os.environ, "FORKSAFE_BUILD": str(build)}, start_new_session=True)
    try:
        status = process.wait()
    finally:
        watched.end_session(process.pid)
    if status != 0 or not results.exists():
        sys.exit(f"soak.sh: soak_system.sh ended with {status}")
    found = json.loads(results.read_text())
    # A case that fails without the library too proves nothing, so it must be mended.
    bad = [row for row in found["rows"] if row["result"] in ("differs", "same, but it fails")]
    print(f"system: {len(found['rows'])} of {found['cases']} cases tried, {len(bad)} differ or fail",
          flush=True)
    return {"well": not bad, **found}


def report(result):
    rows = result["rows"]
    lines = [f"| {row['name']} | {row['result']} | {row['pairs']} | {row['seconds']} | {row['ratio']} |"
             for row in rows if row["result"] != "skipped"]
    skipped = "".join(f"- *{row['name']}* was skipped: {row['why']}\n" for row in rows
                      if row["result"] == "skipped")
    return f"""## A whole system

Real programs in a tree of Debian 12, with the library in `/etc/ld.so.preload`, so in every program there, and \
without it. {len(rows)} of {result['cases']} cases were tried. The exit status and the output must be the same.

| program | result | pairs of runs | seconds without | times the time without |
| --- | --- | --- | --- | --- |
""" + "\n".join(lines) + f"""

- *times the time without*: the median of the pairs. One pair says little.
- *same, but it fails*: it ends with the same error without the library.
{skipped}"""
