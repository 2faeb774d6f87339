# SPDX-License-Identifier: Apache-2.0
"""Runs the cases of cases.toml inside a tree of Debian, each with the library in /etc/ld.so.preload and
without it (scripts/soak_system.sh calls it in a tree).

    inside.py LIBRARY RESULTS SECONDS [NAME...]

First each case is run once both ways, then again and again, until the seconds are over, for the ratio of
the times. Each run has process, IPC and mount namespaces of its own, so nothing that it starts survives it.
RESULTS is a JSON file; a case that does not end as without the library is run again, up to TRIES times. If
its runs without the library differ from each other too, it proves nothing and is skipped.
"""
import json
import shutil
import statistics
import subprocess
import sys
import time
import tomllib
from pathlib import Path

PRELOAD = Path("/etc/ld.so.preload")
INSTALLED = Path("/usr/lib/forksafe/libforksafe.so")
SOURCES = Path("/sources")
WORK = Path("/tmp/case")
TRIES = 4
# What the cases share. The shell is process 1 of its namespace, and must not be what is run: the kernel
# drops signals to process 1 that it has no handler for.
SHELL = """
cd "$1"
timeout --kill-after=5 "$2" sh -eu -c "$3"
exit $?
"""


class Skipped(Exception):
    """The case can't be run here."""


def quietly(*command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise Skipped(f"{' '.join(command[:4])}...: {done.stdout.strip().splitlines()[-1:]}")


def all_cases():
    with (Path(__file__).parent / "cases.toml").open("rb") as file:
        table = tomllib.load(file)
    for entry in table["case"]:
        for each in entry.get("each", [""]):
            yield {"packages": [], "source": "", "part": "", "seconds": 120, "each": [],
                   **{key: value.replace("{each}", each) if isinstance(value, str) else value
                      for key, value in entry.items()}}


def prepare(case):
    if case["packages"]:
        quietly("apt-get", "-q", "install", "-y", "--no-install-recommends", *case["packages"])
    source = case["source"]
    if source and not (SOURCES / source).exists():
        unpacked = SOURCES / f"{source}.part"
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir(parents=True)
        quietly("sh", "-c", f"cd {SOURCES} && apt-get -q source --download-only --tar-only {source} && "
                f"tar -C {unpacked} --strip-components=1 -xf {source}_*.orig.tar.*")
        unpacked.rename(SOURCES / source)


class Run:
    """One run of a case."""

    def __init__(self, case, library):
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir()
        if case["source"]:
            shutil.copytree(SOURCES / case["source"] / case["part"], WORK / case["part"], symlinks=True,
                            dirs_exist_ok=True)
        command = ["unshare", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
                   SHELL, "sh", str(WORK), str(case["seconds"]), case["run"]]
        output = WORK.parent / "output"
        with output.open("wb") as file:
            if library:
                PRELOAD.write_text(f"{INSTALLED}\n")
            begin = time.monotonic()
            try:
                # What the case leaves in the background ends with its namespace.
                self.status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file,
                                             stderr=subprocess.STDOUT, check=False).returncode
            finally:
                self.seconds = time.monotonic() - begin
                PRELOAD.unlink(missing_ok=True)
        self.output = output.read_text(errors="replace")
        log = WORK / "log"
        self.log = log.read_text(errors="replace") if log.exists() else ""

    def result(self):
        return self.status, self.output

    def describe(self):
        return (f"status {self.status}\n{self.output[-3000:]}"
                + (f"log:\n{self.log[-2000:]}" if self.log else ""))


class Tried:
    """A case and its runs so far."""

    def __init__(self, case):
        self.case = case
        self.without, self.with_library = [], []

    def run_pair(self):
        # The second of two runs finds warmer caches, so they take turns.
        order = (False, True) if len(self.without) % 2 == 0 else (True, False)
        for library in order:
            (self.with_library if library else self.without).append(Run(self.case, library))

    def agrees(self):
        return self.with_library[-1].result() in [run.result() for run in self.without]

    def repeats(self):
        return len({run.result() for run in self.without}) == 1

    def compare(self):
        """Returns the result of the case: same, differs, or why it proves nothing."""
        self.run_pair()
        while not self.agrees():
            if len(self.without) == TRIES:
                return "differs" if self.repeats() else "differs from run to run without the library too"
            self.run_pair()
        if self.with_library[-1].status != 0:
            return "same, but it fails"
        return "same"

    def row(self, result):
        ratios = [b.seconds / a.seconds for a, b in zip(self.without, self.with_library)]
        row = {"name": self.case["name"], "result": result, "pairs": len(ratios),
               "seconds": round(statistics.median(run.seconds for run in self.without), 2),
               "ratio": round(statistics.median(ratios), 3), "output": self.with_library[-1].output[-2000:]}
        if result != "same":
            row["without"] = self.without[-1].describe()
            row["with"] = self.with_library[-1].describe()
        return row


def main():
    library, results, seconds, *names = sys.argv[1:]
    end = time.monotonic() + float(seconds)
    INSTALLED.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(library, f"{INSTALLED}.new")
    Path(f"{INSTALLED}.new").rename(INSTALLED)
    cases = [case for case in all_cases() if not names or any(name in case["name"] for name in names)]
    rows, tried = {}, []

    def keep(row):
        rows[row["name"]] = row
        Path(results).write_text(json.dumps({"cases": len(cases), "rows": list(rows.values())}, indent=1))

    for case in cases:
        if rows and time.monotonic() > end:
            break
        attempt = Tried(case)
        try:
            prepare(case)
        except Skipped as why:
            print(f"skipped: {case['name']}: {why}", flush=True)
            keep({"name": case["name"], "result": "skipped", "why": str(why)})
            continue
        result = attempt.compare()
        row = attempt.row(result)
        keep(row)
        print(f"system: {row['name']}: {result}, {row['seconds']} s", flush=True)
        if result == "same":
            tried.append(attempt)
        else:
            print(f"without: {row['without']}\nwith: {row['with']}", flush=True)
    # What differs now would have been seen, so only the times are of interest: the short cases first.
    while tried and time.monotonic() < end:
        attempt = min(tried, key=lambda t: sum(run.seconds for run in t.without))
        result = attempt.compare()
        keep(attempt.row(result))
        if result != "same":
            tried.remove(attempt)
            print(f"system: {attempt.case['name']}: {result}", flush=True)


if __name__ == "__main__":
    main()
