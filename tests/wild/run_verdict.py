#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs one case of cases/verdicts.toml, without the library and with it, and compares what the command
`forksafe` says about its processes with the table.

    run_verdict.py --build BUILD --forksafe PATH NAME

In both runs, `list` and `check` must name the library that has threads, and `check` must not call a
fork beside them safe. If the table has a code, `diagnose` must find a process of the program stuck,
with that code, text and library. If the table has no code, `diagnose` looks at all processes of the
program LOOKS times, and must never find one stuck. The exit status is as for run_case.py.
"""
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time

import cases
import run_case

LOOKS = 15  # how often diagnose looks in each of the two runs, if no process may be stuck
PATIENCE = 300  # seconds, for a program to get ready or stuck on a busy machine


class Wrong(Exception):
    """The command says something else than the table."""


def expect(holds, what, found):
    if not holds:
        raise Wrong(f"{what}, but found: {json.dumps(found)}")


class Run:
    """One run of a program, without or with the library."""

    def __init__(self, case, command, environment, forksafe, status_of_check):
        self.case = case
        self.forksafe = forksafe
        with tempfile.TemporaryDirectory(prefix="forksafe-wild-") as folder:
            with open(os.path.join(folder, "errors"), "w+b") as errors:
                self.program = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                    env={**environment, "WILD_FOLDER": folder}, cwd=folder, start_new_session=True)
                os.set_blocking(self.program.stdout.fileno(), False)
                try:
                    self.look(status_of_check)
                except Wrong as wrong:
                    errors.seek(0)
                    raise Wrong(f"{wrong}\n{errors.read().decode(errors='replace')[-2000:]}") from None
                finally:
                    run_case.end_descendants()
                    self.program.stdout.close()

    def look(self, status_of_check):
        if self.case.code:
            self.check_stuck(self.wait_for(self.first_stuck))
        else:
            self.wait_for(self.program.stdout.read)
        if self.case.threads:
            self.check_parent(status_of_check)
        if not self.case.code:
            for _ in range(LOOKS):
                self.expect_alive()
                stuck = self.first_stuck()
                expect(stuck is None, "no process must be called stuck", stuck)

    def expect_alive(self):
        expect(self.program.poll() is None, "the program must still run", self.program.returncode)

    def wait_for(self, question):
        """Asks until there is an answer."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.expect_alive()
            if answer := question():
                return answer
            time.sleep(0.2)
        raise Wrong(f"{question.__name__}() found nothing in {PATIENCE} s")

    def ask(self, *words):
        """Returns the exit status of the command and its JSON."""
        answer = subprocess.run([self.forksafe, *words, str(self.program.pid)],
                                stdout=subprocess.PIPE, check=False)
        return answer.returncode, json.loads(answer.stdout)

    def first_stuck(self):
        status, found = self.ask("diagnose", "--children", "--json")
        stuck = [process for process in found if process.get("code", "none") != "none"]
        right = 0 if not stuck else 1 if any(process["stuck"] for process in stuck) else 2
        expect(status == right, "diagnose's status must agree with its verdict", status)
        return stuck[0] if stuck else None

    def check_stuck(self, verdict):
        expect(verdict["code"] == self.case.code, f"the code must be {self.case.code}", verdict)
        expect(re.search(self.case.text, verdict["text"]), f"the text must be {self.case.text!r}",
               verdict["text"])
        library = os.path.basename(verdict["library"])
        expect(re.match(self.case.library or self.case.threads, library),
               "the library must be that of the table", library)
        expect("forksafe has none for" in verdict["cure"], "there must be no cure", verdict["cure"])

    def check_parent(self, expected):
        """Checks `list` and `check` of the process that has the threads."""
        _, listed = self.ask("list", "--json")
        status, answer = self.ask("check", "--no-proof", "--json")
        for command, found in (("list", listed), ("check", answer["other_threads"])):
            mine = [r for r in found
                    if re.match(self.case.threads, os.path.basename(r["filepath"] or ""))]
            expect(len(mine) == 1 and mine[0]["user_api"] is None and mine[0]["workers"] > 0,
                   f"{command} must name threads of {self.case.threads}", found)
        expect(status == expected, f"check must end with {expected}", answer)
        if status == 2:
            expect(answer["safe"] is None and answer["text"].startswith(
                "fork may hang here: forksafe does not know "),
                "check must say that it does not know", answer)
        else:
            expect(answer["safe"] is False, "check must not call a fork safe", answer)


def main():
    options = run_case.read_arguments()
    run_case.become_reaper()
    case = next(case for case in cases.all_verdicts() if case.name == options.name)
    _, command, environment = run_case.prepare(case, options.build)
    print("$", shlex.join(command), flush=True)
    sides = {"without": command, "with": [options.forksafe, *command]}
    for (side, line), status_of_check in zip(sides.items(), case.check):
        try:
            Run(case, line, environment, options.forksafe, status_of_check)
        except Wrong as wrong:
            print(f"FAILED {side}: {wrong}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
