#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads the tables of cases (cases/*.toml and ../recipes/recipes.toml) into Python objects. As a
script it prints a line "NAME:RUNNER" for each case of a suite (wild, verdicts or recipes). With an
option it prints the Debian packages or the virtual environments that these cases need:

    cases.py SUITE [--debian | --environments]

docs/compatibility.md has a section for each file, under the file's title. The keys of a case:
    name          the name of the test; meson allows no colon in it
    what          what the program does, in a few words
    run           a program in programs/, with arguments; its suffix says what runs it. In a recipe
                  it is any command (../recipes/run_recipe.py)
    recipe        the folder in ../recipes with the configuration that the command uses
    environment   the virtual environment in which the program runs; environments/ has a list of its
                  packages (default: Debian's Python)
    packages      the packages whose versions are reported; if one is missing, the case is skipped
    debian        the same, for Debian's packages
    sources       a Debian source package; {sources} in `run` stands for its folder
    runtime       a pattern for the file name of the runtime that must have started a thread
                  before the parent forks
    without       the outcomes that are allowed without the library: hangs, crashes, fails, passes
    with_library  the outcome that is required with the library (default: passes)
    why           the reason, for the user, if with_library is not "passes"
    forks         how many children must return the right result (default 20)
    seconds       the longest time that a run may take (default 60)
    variables     environment variables
    runner        the script beside this one that runs the case (default run_case.py)
The table `all` of a file has the keys that all its cases share.

cases/verdicts.toml has cases of another kind. They check what the command `forksafe` says about
thread pools that forksafe does not support. They have some of the keys above, and these:
    threads       a pattern for the file name of the library whose threads the parent has
                  (default: none)
    check         the exit statuses of `forksafe check`: without the library, and with it. The status
                  is 1 if the process also has an OpenBLAS that is not safe (default: [2, 2])
    code, text    the verdict of `forksafe diagnose` on the stuck process: its code, and a pattern
                  for a part of its text (default: no process is stuck)
    library       a pattern for the file name of the library in which the process waits
                  (default: threads)
"""
import dataclasses
import re
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
RECIPES = HERE.parent / "recipes" / "recipes.toml"
TABLES = ["numpy", "science", "multiprocessing", "joblib", "servers", "languages", "suites"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """What all cases have: a program, and what it needs."""
    name: str
    run: str
    environment: str = ""
    packages: list = dataclasses.field(default_factory=list)
    debian: list = dataclasses.field(default_factory=list)
    sources: str = ""
    forks: int = 20
    variables: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case(Program):
    group: str
    what: str
    runtime: str
    without: list
    with_library: str = "passes"
    why: str = ""
    recipe: str = ""
    seconds: int = 60
    runner: str = "run_case.py"

    @property
    def suite(self):
        return "recipes" if self.recipe else "wild"


def all_cases():
    """The cases of all files, in the order of TABLES, and then the recipes."""
    found = []
    for path in [*(HERE / "cases" / f"{name}.toml" for name in TABLES), RECIPES]:
        with path.open("rb") as file:
            table = tomllib.load(file)
        shared = {"group": table["title"], **table.get("all", {})}
        found += [Case(**{**shared, **entry}) for entry in table["case"]]
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict(Program):
    threads: str = ""
    check: list = dataclasses.field(default_factory=lambda: [2, 2])
    code: str = ""
    text: str = ""
    library: str = ""
    runner: str = "run_verdict.py"
    suite: str = "verdicts"


def all_verdicts():
    with (HERE / "cases" / "verdicts.toml").open("rb") as file:
        table = tomllib.load(file)
    return [Verdict(**{**table["all"], **entry}) for entry in table["verdict"]]


def by_name(name):
    return next(case for case in all_cases() if case.name == name)


def file_name(name):
    return re.sub("[^a-z0-9.]+", "-", name.lower()).strip("-")


def main(suite, what=""):
    chosen = [case for case in all_cases() + all_verdicts() if case.suite == suite]
    if what == "--debian":
        lines = sorted({package for case in chosen for package in case.debian})
    elif what == "--environments":
        lines = sorted({case.environment for case in chosen if case.environment})
    else:
        lines = [f"{case.name}:{case.runner}" for case in chosen]
    print("\n".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
