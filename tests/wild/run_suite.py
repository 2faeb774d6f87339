#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs one case of cases/suites.toml: another project's own tests, without the library and with it.
The two runs go in parallel, because these tests wait more than they compute. Each test must have the
same result in both runs. If the results of a test differ, the test is run again by itself, without
and with the library. It counts as different only if the results differ again.

    run_suite.py --build BUILD --forksafe PATH NAME

Exit status and result are as for run_case.py. The result also has counts of tests.
"""
import collections
import concurrent.futures
import dataclasses
import json
import shlex
import sys
from xml.etree import ElementTree

import cases
import run_case

RESULTS = "results.xml"  # in JUnit's format, which both regrtest and pytest write
SELECT = {"test": "-m", "pytest": "-k"}  # the option that selects tests, for each test runner
RUN_AGAIN = 10  # if more tests than this differ, that is no accident, and no test is run again


class Run(run_case.Attempt):
    """One run of a suite."""

    def __init__(self, *arguments):
        self.tests = {}
        super().__init__(*arguments)
        self.process = None  # the object is pickled for the main process; a Popen can't be

    def judge_end(self, status):
        if status < 0 or not (self.folder / RESULTS).exists():
            return super().judge_end(status)
        self.tests = results_of(self.folder / RESULTS)
        if status == 0:
            return "passes", ""
        bad = [name for name, result in self.tests.items() if result not in ("passed", "skipped")]
        return "fails", ", ".join(bad[:5]) or f"status {status}: {self.last_error()}"


def results_of(file):
    """Returns the result of each test by name. regrtest writes no name for a test with a failed
    subtest. Such a test is missing here, which also counts as a difference from the other run."""
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
    """Returns the tests whose results differ. If a run left no results at all, returns none: check()
    reports that run."""
    if not without.tests or not with_library.tests:
        return []
    names = sorted(without.tests.keys() | with_library.tests.keys())
    return [name for name in names if without.tests.get(name) != with_library.tests.get(name)]


def selection(name):
    """Returns the last part of a test's name, without parameters. Both test runners select by it."""
    return name.partition("[")[0].rpartition(".")[2]


def counts(attempt):
    return dict(collections.Counter(attempt.tests.values()))


def summary(attempt):
    return {**run_case.summary(attempt), "forks": None, "counts": counts(attempt)}


def main():
    options = run_case.read_arguments()
    case = cases.by_name(options.name)
    file = run_case.new_result(case, options.build)
    packages, command, environment = run_case.prepare(case, options.build)
    command.append(f"--junit-xml={RESULTS}")
    sides = [command, [options.forksafe, *command]]
    select = SELECT[shlex.split(case.run)[1]]
    print("$", shlex.join(command), flush=True)
    # Each run has a process of its own, because an Attempt kills all descendants of its process.
    with concurrent.futures.ProcessPoolExecutor(2, initializer=run_case.become_reaper) as pool:
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

    # The suite as a whole must have the same outcome with and without the library. If the results of
    # tests differ, the loop below judges these tests instead.
    outcome = with_library.outcome if different else without.outcome
    expected = dataclasses.replace(case, with_library=outcome)
    problems = run_case.check(expected, without, with_library)
    if not without.tests:
        problems.append("without: the run left no result of any test")
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
