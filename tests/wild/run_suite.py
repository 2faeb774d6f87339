#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs one case of cases/suites.toml, another project's own tests, without the library and with it:
side by side, for such tests wait more than they compute. Each test must have the same result in
both. Those that have not are run again by themselves before they count as different.

    run_suite.py --build BUILD --forksafe PATH NAME

Exit status and result are those of run_case.py; the result has counts of tests as well.
"""
import argparse
import collections
import concurrent.futures
import ctypes
import dataclasses
import json
import os
import shlex
import sys
from pathlib import Path
from xml.etree import ElementTree

import cases
import run_case

RESULTS = "results.xml"  # in JUnit's format, which regrtest and pytest write alike
SELECT = {"test": "-m", "pytest": "-k"}  # how each is told which tests to run
RUN_AGAIN = 10  # so many that differ; more are no accident


class Run(run_case.Attempt):
    """One run of a suite."""

    def __init__(self, *arguments):
        self.tests = {}
        super().__init__(*arguments)
        self.process = None  # this object is sent to the process that compares

    def judge_end(self, status):
        if status < 0 or not (self.folder / RESULTS).exists():
            return super().judge_end(status)
        self.tests = results_of(self.folder / RESULTS)
        if status == 0:
            return "passes", ""
        bad = [name for name, result in self.tests.items() if result not in ("passed", "skipped")]
        return "fails", ", ".join(bad[:5]) or f"status {status}: {self.last_error()}"


def results_of(file):
    """What came of each test, by its name. regrtest names no test whose subtest failed: it is missing,
    which differs from a result as well."""
    words = {"failure": "failed", "error": "error", "skipped": "skipped",
             "outcome": "unexpected success"}
    found = {}
    for test in ElementTree.parse(file).iter("testcase"):
        name = ".".join(filter(None, (test.get("classname"), test.get("name"))))
        results = [words[child.tag] for child in test if child.tag in words]
        if name:
            found[name] = ", ".join(results) or "passed"
    return found


def differences(without, with_library):
    """The tests that came to something else; none where a run left no results: that is a problem
    by itself."""
    if not without.tests or not with_library.tests:
        return []
    names = sorted(without.tests.keys() | with_library.tests.keys())
    return [name for name in names if without.tests.get(name) != with_library.tests.get(name)]


def selection(name):
    """The last part of a test's name, without parameters: both runners find it by that."""
    return name.partition("[")[0].rpartition(".")[2]


def counts(attempt):
    return dict(collections.Counter(attempt.tests.values()))


def summary(attempt):
    return {**run_case.summary(attempt), "forks": None, "counts": counts(attempt)}


def become_reaper():
    """Orphans of a run come to the process that runs it, which ends them: see Attempt."""
    ctypes.CDLL(None).prctl(run_case.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--forksafe", type=os.path.abspath, required=True)
    parser.add_argument("name")
    options = parser.parse_args()

    case = cases.by_name(options.name)
    file = options.build / "wild" / "results" / f"{cases.file_name(case.name)}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    folder = options.build / "wild" / case.environment
    try:
        packages = run_case.versions(case, folder)
        command = run_case.command_of(case, options.build, folder)
    except run_case.Skipped as reason:
        print(f"skipped: {reason}")
        return 77
    command.append(f"--junit-xml={RESULTS}")
    sides = [command, [options.forksafe, *command]]
    environment = run_case.environment_of(case, folder)
    select = SELECT[shlex.split(case.run)[1]]
    print("$", shlex.join(command), flush=True)
    # A process for each side: an attempt ends all descendants of its own.
    with concurrent.futures.ProcessPoolExecutor(2, initializer=become_reaper) as pool:
        def start(words):
            return pool.submit(Run, case, words, environment, options.forksafe)

        without, with_library = [f.result() for f in [start(side) for side in sides]]
        print("without:", summary(without), flush=True)
        print("with:", summary(with_library), flush=True)
        again = {}
        different = differences(without, with_library)
        for name in different if len(different) <= RUN_AGAIN else []:
            again[name] = [start([*side, select, selection(name)]).result().tests.get(name)
                           for side in sides]

    # A suite passes or fails as it does without the library. Where it does not, because of tests that
    # differ, those are judged one by one.
    outcome = with_library.outcome if different else without.outcome
    expected = dataclasses.replace(case, with_library=outcome)
    problems = run_case.check(expected, without, with_library)
    if not without.tests:
        problems.append("without: no test has a result")
    for name in different:
        results = f"{without.tests.get(name)} without, {with_library.tests.get(name)} with"
        if name in again:
            alone = f"by itself {again[name][0]} without, {again[name][1]} with"
            print(f"{name}: {results}; {alone}")
            if again[name][0] == again[name][1] is not None:
                continue
            results += f"; {alone}"
        problems.append(f"{name}: {results}")
    parent = next((p for p in with_library.parents if run_case.workers(p, case.runtime)), None)
    file.write_text(json.dumps({
        "name": case.name, "group": case.group, "what": case.what, "why": case.why,
        "packages": packages, "runtime": case.runtime,
        "runtimes": parent["runtimes"] if parent else [],
        "parent_threads": len(parent["threads"]) if parent else None,
        "tests": len(without.tests.keys() | with_library.tests.keys()), "run_again": again,
        "without": summary(without), "with": summary(with_library), "problems": problems,
    }, indent=1) + "\n")
    for problem in problems:
        print("FAILED", problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
