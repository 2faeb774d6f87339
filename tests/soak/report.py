#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Takes the areas that BUILD/soak/results.json has (scripts/soak.sh) into results.json beside this file,
and writes docs/reliability.md from that. So an area that was not run again keeps its last result: some take
hours, or a quiet machine.

    report.py BUILD
"""
import importlib
import json
import sys
from pathlib import Path

import soak

KEPT = Path(__file__).with_name("results.json")
# What repeats a run on the machine that made it. The page does not show it.
LEFT_OUT = ("command", "output", "verdict", "site")


def without_details(value):
    if isinstance(value, dict):
        return {key: without_details(each) for key, each in value.items() if key not in LEFT_OUT}
    return [without_details(each) for each in value] if isinstance(value, list) else value


def main():
    build = Path(sys.argv[1]).resolve()
    results_file = build / "soak/results.json"
    if not results_file.exists():
        sys.exit(f"soak.sh: no results: {results_file} does not exist; run sh scripts/soak.sh first")
    results = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    results.update(without_details(json.loads(results_file.read_text())))
    KEPT.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    text = ["""<!-- Written by tests/soak/report.py from the results of the last runs: not to be edited by hand. -->
# Reliability

How often a program forked without a hang, and what happened when something failed. Made by
`sh scripts/soak.sh`, which says how to repeat each run ([testing.md](testing.md#for-hours)), and written by
`sh scripts/soak.sh --report`. The last line of each part says when, at which commit and on which machine.
"""]
    for area in soak.AREAS:
        if area not in results:
            continue
        result = results[area]
        text.append(importlib.import_module(area).report(result))
        text.append(f"""{result['date']}, commit {result['commit']}, seed {result['seed']}, \
{result['seconds']} seconds; {result['machine']}. The load average was {result['load'][0]} before and \
{result['load'][1]} after.
""")
    (soak.ROOT / "docs/reliability.md").write_text("\n".join(text))


if __name__ == "__main__":
    main()
