#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the results of the last run of the suites: docs/compatibility.md, docs/compatibility.svg and
the counts in README.md.

    report.py --build BUILD

It reads BUILD/wild/results, where `meson test --suite wild` and `meson test --suite recipes` leave their
results. A case without a result is listed as "not run". If no recipe, or nothing but recipes, has a result,
the page keeps the other part as it is.
"""
import argparse
import json
import os
import platform
import re
import subprocess
from html import escape
from pathlib import Path

import cases

ROOT = Path(__file__).resolve().parents[2]
BEGIN = "<!-- written by tests/wild/report.py -->"
END = "<!-- end -->"
BAD = {"hangs", "crashes", "fails"}


def load(build):
    """Returns the cases with their results, as {group: [(case, result)]}, and the cases that are
    recipes or other projects' suites as [(case, result)]. The result of a case that was not run is
    None."""
    groups, recipes, suites = {}, [], []
    for case in cases.all_cases():
        file = build / "wild" / "results" / f"{cases.file_name(case.name)}.json"
        result = json.loads(file.read_text()) if file.exists() else None
        by_runner = {"run_suite.py": suites, "run_recipe.py": recipes}
        entries = by_runner.get(case.runner)
        if entries is None:
            entries = groups.setdefault(case.group, [])
        entries.append((case, result))
    return groups, recipes, suites


def system():
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)', Path("/etc/os-release").read_text(), re.M))
    python = subprocess.run(["/usr/bin/python3", "--version"], capture_output=True, text=True,
                            check=True).stdout.strip()
    return (f"{release['PRETTY_NAME']}, glibc {platform.libc_ver()[1]}, {python}, "
            f"{platform.machine()}, {os.cpu_count()} processors")


def upstream(version):
    """Returns a version without Debian's epoch and revision, and without a local part."""
    return re.sub(r"^\d+:|[-+].*$", "", version)


def packages(result):
    return ", ".join(f"{name} {upstream(version)}" for name, version in result["packages"].items())


def runtime(result):
    """Returns the runtime that the parent's threads belonged to, as `forksafe list` names it."""
    found = []
    for r in result["runtimes"]:
        if re.search(result["runtime"], os.path.basename(r["filepath"])):
            name = f"{r['name']} {r.get('version') or ''}".strip()
            if r.get("threading_layer") == "openmp":
                name += " on OpenMP"
            if name not in found:
                found.append(name)
    return ", ".join(found) or "its own threads"


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"
              for row in rows]
    return "\n".join(lines)


def outcome(attempt):
    """Returns the outcome, with the code of diagnose's verdict if the program was stuck."""
    code = re.search(r": ([a-z0-9-]+),", attempt["text"])
    return f"{attempt['outcome']} ({code[1]})" if code else attempt["outcome"]


def case_table(entries):
    rows = []
    for case, result in entries:
        if result is None:
            rows.append([case.name, case.what, "", "", "not run", "not run", "", ""])
            continue
        rows.append([
            case.name, case.what, packages(result), runtime(result), outcome(result["without"]),
            outcome(result["with"]), result["with"]["forks"],
            f"{result['without']['seconds']:.1f}, {result['with']['seconds']:.1f}"])
    text = table(["case", "what it does", "packages", "runtime", "without", "with", "forks",
                  "seconds"], rows)
    reasons = [f"- *{case.name}*: {case.why}" for case, _ in entries if case.why]
    return text + ("\n\n" + "\n".join(reasons) if reasons else "")


def suite_table(entries):
    """Returns the results of other projects' tests, without and with the library."""
    def counted(attempt):
        return ", ".join(f"{n} {word}" for word, n in sorted(attempt["counts"].items()))

    rows = []
    for case, result in entries:
        if result is None:
            rows.append([case.name, "", "", "not run", "not run", ""])
            continue
        rows.append([case.name, case.what, packages(result), counted(result["without"]),
                     counted(result["with"]),
                     f"{result['without']['seconds']:.0f}, {result['with']['seconds']:.0f}"])
    return table(["suite", "what runs", "packages", "without", "with", "seconds"], rows)


def counts(entries):
    results = [result for _, result in entries if result]
    bad = sum(result["without"]["outcome"] in BAD for result in results)
    good = sum(result["with"]["outcome"] == "passes" for result in results)
    return len(results), bad, good


def summary_table(groups):
    rows = []
    for group, entries in groups.items():
        tried, bad, good = counts(entries)
        names = {}
        for _, result in entries:
            for name, version in (result["packages"] if result else {}).items():
                names.setdefault(name, set()).add(upstream(version))
        named = ", ".join(f"{name} {span(versions)}" for name, versions in names.items())
        rows.append([group, named, tried, bad, good])
    return table(["", "packages", "cases", "hang or fail without", "pass with"], rows)


def readme_part(groups):
    tried, bad, good = counts([entry for entries in groups.values() for entry in entries])
    return f"{tried} cases: {bad} hang or fail without the library, {good} pass with it."


def span(versions):
    ordered = sorted(versions, key=lambda v: [int(n) for n in re.findall(r"\d+", v)])
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"


def compatibility(groups, recipes, suites):
    text = [f"""<!-- Written by tests/wild/report.py from the results of the last runs: not to be edited by hand. -->
# What works

{summary_table(groups)}

![Each case, without and with](compatibility.svg)

Each case is a small program. It computes in the parent, forks, computes in its children, and
compares the results: to the bit, or within the package's own tolerance where its program says so.
It runs on the stock libraries first (*without*), then under `forksafe` (*with*). Before it forks, a
thread of the named runtime must be alive in the parent.

- *without*, *with*: the outcome. For *hangs*, the verdict of `forksafe diagnose` follows in brackets.
- *forks*: the number of children that returned the right result under `forksafe`.
- *seconds*: the time without and with. A program that hangs is ended after about 5 seconds.
- `FORKSAFE_WAIT_MS` is 20000. With the default, a child on a busy machine might compute with one
  thread.

{system()}.

Made by `sh scripts/test.sh --wild && python3 tests/wild/report.py --build build`.
"""]
    for group, entries in groups.items():
        text += [f"## {group}\n", case_table(entries) + "\n"]
    text += [f"""## {recipes[0][0].group}

In each case another system starts the program, with a configuration from [recipes.md](recipes.md).
*without*: the lines of the configuration that name forksafe are left out. *with*: they are there. A
trap is a setting that has no effect. With it, the program must behave as it does without the library.

{case_table(recipes)}

Made by `sh scripts/test.sh --recipes && python3 tests/wild/report.py --build build`.
"""]
    text += [f"""## Other projects' own test suites

Each test must have the same result without the library and with it.

{suite_table(suites)}
"""]
    return "\n".join(text)


COLOURS = {"passes": "#2f7d4f", "hangs": "#b3372f", "crashes": "#b3372f", "fails": "#b3372f",
           "not run": "#8a8a8a"}
ROW, COLUMN, CELL, COLUMNS = 17, 400, 52, 3


def picture(groups):
    """Draws the cases as rows of two coloured cells, in columns of about the same height."""
    lines = []
    for group, entries in groups.items():
        lines.append((group, None))
        lines += [(case.name, result) for case, result in entries]
    height = -(-len(lines) // COLUMNS) + 1
    parts = []
    for index, (label, result) in enumerate(lines):
        x, y = 10 + index // height * COLUMN, 40 + index % height * ROW
        if (label, result) == (label, None) and label in groups:
            parts.append(f'<text x="{x}" y="{y + 13}" class="group">{escape(label)}</text>')
            continue
        parts.append(f'<text x="{x}" y="{y + 13}">{escape(label)}</text>')
        for i, side in enumerate(("without", "with")):
            word = result[side]["outcome"] if result else "not run"
            left = x + COLUMN - 2 * (CELL + 4) - 20 + i * (CELL + 4)
            parts.append(f'<rect x="{left}" y="{y + 1}" width="{CELL}" height="{ROW - 3}" rx="2" '
                         f'fill="{COLOURS[word]}"/>')
            parts.append(f'<text x="{left + CELL // 2}" y="{y + 12}" class="cell">{word}</text>')
    for column in range(COLUMNS):
        for i, side in enumerate(("without", "with")):
            middle = 10 + column * COLUMN + COLUMN - 2 * (CELL + 4) - 20 + i * (CELL + 4) + CELL // 2
            parts.append(f'<text x="{middle}" y="30" class="head">{side}</text>')
    width = 10 + COLUMNS * COLUMN
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{50 + height * ROW}" \
viewBox="0 0 {width} {50 + height * ROW}">
<style>
text {{ font: 12px sans-serif; fill: #222 }}
.group {{ font-weight: bold }}
.cell {{ font-size: 10px; fill: #fff; text-anchor: middle }}
.head {{ font-weight: bold; text-anchor: middle }}
</style>
<rect width="100%" height="100%" fill="#fff"/>
""" + "\n".join(parts) + "\n</svg>\n"


def recipes_section(page, recipes):
    """Returns the section of the page about the recipes."""
    begin = page.index(f"## {recipes[0][0].group}\n")
    return page[begin:page.index("\n## ", begin)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, required=True)
    build = parser.parse_args().build
    groups, recipes, suites = load(build)

    file = ROOT / "docs/compatibility.md"
    old, new = file.read_text(), compatibility(groups, recipes, suites)
    parts = [recipes_section(page, recipes) for page in (old, new)]
    # The recipes have a command of their own. What was not run keeps the results of the run before.
    if not any(result for _, result in sum(groups.values(), suites)):
        file.write_text(old.replace(*parts))
        return
    if not any(result for _, result in recipes):
        new = new.replace(*reversed(parts))
    file.write_text(new)
    (ROOT / "docs/compatibility.svg").write_text(picture(groups))
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(f"{before}{BEGIN}\n{readme_part(groups)}\n{END}{after}")


if __name__ == "__main__":
    main()
