#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a recipe: a system that starts programs, with a configuration that preloads the library.

    run_recipe.py --build BUILD --forksafe PATH NAME

It works like ../wild/run_case.py, except that both runs use the same command and differ only in the
configuration. The command of the case runs in a copy of the recipe's folder:

    without   lines that name forksafe are left out
    with      /usr/bin/forksafe and /usr/lib/forksafe/libforksafe.so stand for the files under test

In both, /srv/app stands for that copy, and /srv/venv for the virtual environment. A case whose
`with_library` is not "passes" is a trap: a setting that has no effect. Its program must behave as
without the library, and `forksafe diagnose` must report that nothing is guarded.
"""
import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE.parent / "wild" / "programs"
sys.path.insert(0, str(PROGRAMS.parent))

import run_case


class Recipe(run_case.Attempt):
    """One run of a command in a copy of the recipe's folder, in which words are replaced."""

    def __init__(self, preloads, words, case, *arguments):
        self.preloads = preloads
        self.words = words
        super().__init__(case, *arguments)

    def lay_out(self):
        source = HERE / self.case.recipe
        for file in filter(Path.is_file, source.rglob("*")):
            text = file.read_text()
            if not self.preloads:
                text = "".join(line for line in text.splitlines(True) if "forksafe" not in line)
            for word, other in {**self.words, "/srv/app": str(self.folder)}.items():
                text = text.replace(word, other)
            copy = self.folder / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(text)
            copy.chmod(file.stat().st_mode)


def command_of(case, _build, _folder):
    return shlex.split(case.run.format(programs=PROGRAMS, recipes=HERE))


def attempts(case, command, environment, options):
    library = subprocess.run([options.forksafe, "--print-library"], stdout=subprocess.PIPE, text=True,
                             check=True).stdout.strip()
    venv = str((options.build / "wild" / case.environment).absolute())
    words = {"/usr/lib/forksafe/libforksafe.so": library, "/usr/bin/forksafe": options.forksafe,
             "/srv/venv": venv}

    def run(preloads):
        return Recipe(preloads, words, case, command, environment, options.forksafe)

    return lambda: run(False), lambda: run(True)


if __name__ == "__main__":
    sys.exit(run_case.main(command_of, attempts))
