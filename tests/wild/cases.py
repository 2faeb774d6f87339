#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The tables of cases, cases/*.toml, as Python objects. Run by itself it prints "NAME:RUNNER" of
each, or with --debian the packages of Debian's that they need.

A file's title is the heading that its cases stand under in docs/compatibility.md. The keys of a case:
    name          of the test; no colon (meson's)
    what          what it does, in a few words
    run           a program in programs/, with arguments; its suffix says what runs it
    environment   a list of packages in environments/, the virtual environment that it runs in;
                  none: Debian's Python
    packages      those whose versions count: without them the case is skipped
    debian        the same, of Debian's packages
    sources       a source package of Debian's, which `run` calls {sources}
    runtime       a pattern for the file name of the runtime that must have started a thread
                  before the parent forks
    without       what may come without the library: hangs, crashes, fails, passes
    with_library  what must come with it: passes, unless `why` says why not
    why           a reason that a user should read
    forks         how many must come back well (default 20)
    seconds       the most that a run may take (default 60)
    variables     environment variables
    runner        the script beside this one that runs it (default run_case.py)
What all cases of a file share stands in its table `all`.
"""
import dataclasses
import re
import sys
import tomllib
from pathlib import Path

TABLES = ["numpy", "science", "multiprocessing", "joblib", "servers", "languages", "suites"]


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    group: str
    what: str
    run: str
    runtime: str
    without: list
    with_library: str = "passes"
    why: str = ""
    environment: str = ""
    packages: list = dataclasses.field(default_factory=list)
    debian: list = dataclasses.field(default_factory=list)
    sources: str = ""
    forks: int = 20
    seconds: int = 60
    variables: dict = dataclasses.field(default_factory=dict)
    runner: str = "run_case.py"


def all_cases():
    """Those of all files, in the order of TABLES."""
    found = []
    for name in TABLES:
        with (Path(__file__).parent / "cases" / f"{name}.toml").open("rb") as file:
            table = tomllib.load(file)
        shared = {"group": table["title"], **table.get("all", {})}
        found += [Case(**{**shared, **entry}) for entry in table["case"]]
    return found


def by_name(name):
    return next(case for case in all_cases() if case.name == name)


def file_name(name):
    return re.sub("[^a-z0-9.]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    if sys.argv[1:] == ["--debian"]:
        print("\n".join(sorted({package for case in all_cases() for package in case.debian})))
    else:
        print("\n".join(f"{case.name}:{case.runner}" for case in all_cases()))
