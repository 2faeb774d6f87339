# SPDX-License-Identifier: Apache-2.0
"""What the areas share: processes with a time limit, the variants that are compared, measuring in
turns, and the rows of the table."""
import contextlib
import glob
import json
import os
import re
import select
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TIMEOUT_S = 120
LOOK_S = 10  # how often `forksafe diagnose` looks whether a process is stuck
# A noisy ratio is measured in more rounds than planned.
NOISY = 0.1  # a ratio is noisy if its quartiles are further apart than this part of its median
MOST_REPEATS = 3  # at most this many times the planned rounds
SPARE_S = 240  # and at most so much time for all such rounds of a run


class Failed(Exception):
    """Something could not be measured."""


class Hung(Failed):
    """`forksafe diagnose` says that the process is stuck."""


def run_process(command, environment, timeout=TIMEOUT_S, forksafe=None):
    """Runs a process and returns what it wrote to standard output and standard error. The process
    leads a group of its own. The group is always killed and reaped, because children of a hanging pool
    outlive their parent. Every LOOK_S seconds the command `forksafe` says whether the process is stuck
    or only slow. If `forksafe` is None, nothing looks at the process."""
    # Files rather than pipes, because a child that outlives its parent would keep a pipe open.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=output,
                                   stderr=errors, env=environment, start_new_session=True)
        handle = os.pidfd_open(process.pid)
        stuck = ""
        try:
            for _ in range(-(-timeout // LOOK_S)):
                ended = select.select([handle], [], [], LOOK_S)[0]
                stuck = "" if ended or not forksafe else where_stuck(forksafe, process.pid)
                if ended or stuck:
                    break
        finally:
            os.close(handle)
            end_group(process)
        name = os.path.basename(str(command[0]))
        text, complaint = read(output), read(errors)
        if stuck:
            raise Hung(stuck)
        if not ended:
            raise Failed(f"{name} did not end within {timeout} s")
        if process.returncode != 0:
            last = (complaint.strip().splitlines() or [""])[-1]
            raise Failed(f"{name} ended with {process.returncode}: {last}")
        return text, complaint


def where_stuck(forksafe, pid):
    """Asks `forksafe diagnose` about the process and its children. Returns the verdict on the first
    one that is stuck, or an empty text."""
    try:
        answer = subprocess.run([forksafe, "diagnose", "--children", "--json", str(pid)],
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30,
                                check=False)
        for found in json.loads(answer.stdout):
            if found.get("stuck"):
                who = "the parent" if found["pid"] == pid else "a child"
                return f"{who}: {found['code']}, {found['place']}"
    except (OSError, subprocess.TimeoutExpired, ValueError):
        pass
    return ""


def end_group(process):
    """Kills and reaps the group of the process. Nobody has reaped the leader yet, so no other group can
    have its number. run.py is a subreaper, so orphans of the group are children of this process."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    while True:
        try:
            os.waitpid(-process.pid, 0)
        except ChildProcessError:
            return


def read(file):
    file.seek(0)
    return file.read().decode(errors="replace")


def spread(values):
    if len(values) == 1:
        values = values * 2
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "q1": low, "q3": high, "count": len(values)}


def ratios(some, others):
    return spread([a / b for a, b in zip(some, others)])


def is_noisy(ratio):
    return ratio["q3"] - ratio["q1"] > NOISY * ratio["median"]


class Bench:
    """The build that is measured, and the rows of the table so far."""

    def __init__(self, build, quick, library=None):
        self.build = Path(build).resolve()
        self.quick = quick
        self.library = Path(library).resolve() if library else self.build / "shim/libforksafe.so"
        self.command = self.build / "cli/forksafe"
        self.programs = self.build / "bench/programs"
        self.libomp = next(iter(glob.glob("/usr/lib/*/libomp.so.5")), None)
        python = self.build / "wild/science/bin/python"  # made by run.sh or scripts/test.sh --wild
        self.python = python if python.exists() else None
        self.rows = []
        self.spare_s = 0 if quick else SPARE_S

    # --- running programs

    def preload(self, name):
        return self.programs / f"lib{name}.so"

    def variables(self, variant):
        """Returns the variables that a variant sets. A variant that needs no preload gets an empty one,
        so both sides of a ratio have the cost of a preload itself."""
        some = {"LD_PRELOAD": self.preload("empty")}
        return {
            "stock": some,
            "no handlers": {"LD_PRELOAD": self.preload("no_handlers")},
            "libomp": {"LD_PRELOAD": self.libomp},
            "NUM_THREADS=1": {**some, "OPENBLAS_NUM_THREADS": 1, "OMP_NUM_THREADS": 1},
            "forksafe": {"LD_PRELOAD": self.library, "FORKSAFE_CHILD_THREADS": "inherit"},
            "forksafe auto": {"LD_PRELOAD": self.library, "FORKSAFE_CHILD_THREADS": "auto"},
        }[variant]

    def environment(self, variant):
        """Returns the caller's environment without the variables that choose a number of threads or a
        preload, and with those of the variant."""
        environment = {name: value for name, value in os.environ.items()
                       if not re.match("(FORKSAFE|OMP_|GOMP_|KMP_|LD_|MALLOC_|PYTHON|VIRTUAL_ENV)",
                                       name) and not name.endswith("_NUM_THREADS")}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"  # loky does not pass -B on to its workers
        environment.update({name: str(value) for name, value in self.variables(variant).items()})
        return environment

    def program(self, name, *options, variant="forksafe", timeout=TIMEOUT_S):
        """Runs a benchmark program and returns the JSON that it prints."""
        command = [self.programs / name, *options]
        return json.loads(run_process(command, self.environment(variant), timeout,
                                      self.command)[0])

    def workload(self, name, *arguments, variant="stock", timeout=TIMEOUT_S):
        """Runs a program of workloads/ and returns the JSON lines that it prints, in one dictionary."""
        command = [self.python, "-s", "-B", HERE / "workloads" / name, *arguments]
        output, complaint = run_process(command, self.environment(variant), timeout, self.command)
        result = {}
        for line in output.splitlines():
            result.update(json.loads(line))
        # The library complains if it does not know the value of an option (--library: an older one).
        said = re.search(r"^forksafe\[\d+\]: (.*FORKSAFE_CHILD_THREADS.*)", complaint, re.M)
        result["complaint"] = said[1] if said else None
        return result

    def in_turns(self, rounds, *measurements, spreads=None):
        """Calls each measurement once a round, and changes the order from round to round, so other work
        on the machine falls on all of them. Returns a list of results for each measurement.

        `spreads` gets these lists and returns the ratios that matter. While one of them is noisy, there are
        more rounds than planned."""
        results = [[] for _ in measurements]
        count = len(measurements)
        for turn in range(rounds * MOST_REPEATS):
            if turn >= rounds and (self.spare_s <= 0 or spreads is None or
                                   not any(map(is_noisy, spreads(*results)))):
                break
            begin = time.monotonic()
            order = [(turn + i) % count for i in range(count)]
            for which in order if turn // count % 2 == 0 else reversed(order):
                results[which].append(measurements[which]())
            if turn >= rounds:
                self.spare_s -= time.monotonic() - begin
        return results

    # --- adding rows

    @contextlib.contextmanager
    def cell(self, what):
        """If the block fails, adds a row that says so, and the run goes on."""
        try:
            yield
        except (Failed, subprocess.SubprocessError, OSError, ValueError, KeyError) as error:
            self.rows.append({"what": what, "error": f"{type(error).__name__}: {error}"})
            print(f"{what:<72} FAILED: {error}", flush=True)

    def skip(self, what, why):
        self.rows.append({"what": what, "skipped": why})
        print(f"{what:<72} skipped: {why}", flush=True)

    def hangs(self, what, why, **more):
        """Adds a row for a variant that hangs: stock, or another with which the library is compared."""
        self.rows.append({"what": what, "hangs": str(why), **more})
        print(f"{what:<72}   hangs ({why})", flush=True)

    def add(self, what, ratio, measured, against, unit="us", bar=None, below=False, **more):
        """Adds a row with a ratio and its quartiles. A `bar` is the goal for the ratio: at most that
        value, or with `below` less than it. `more` goes to the JSON; the report finds rows by it."""
        row = {"what": what, "ratio": ratio, "measured": measured, "against": against,
               "unit": unit, "bar": bar, "below": below, "verdict": verdict(ratio, bar, below),
               **more}
        self.rows.append(row)
        limit = "" if bar is None else f"{'<' if below else '<='} {bar:g} {row['verdict']}"
        print(f"{what:<72} {ratio['median']:7.3f}  [{ratio['q1']:.3f} {ratio['q3']:.3f}]"
              f"  {measured:9.4g} {against:9.4g} {unit}  {limit}", flush=True)

    def add_ms(self, what, times, bar, **more):
        found = spread(times)
        word = verdict(found, bar)
        self.rows.append({"what": what, "ms": found, "bar": bar, "verdict": word, **more})
        print(f"{what:<72} {found['median']:7.2f} ms  [{found['q1']:.2f} {found['q3']:.2f}]"
              f"  <= {bar:g} ms {word}", flush=True)

    def add_count(self, what, count, of):
        self.rows.append({"what": what, "count": count, "of": of})
        print(f"{what:<72} {count} of {of}", flush=True)


def verdict(found, bar, below=False):
    if bar is None:
        return ""
    over = (lambda value: value >= bar) if below else (lambda value: value > bar)
    if not over(found["median"]):
        return "ok"
    # If a quarter of the pairs meet the bar, the spread may be the reason, and not the library.
    return "OVER" if over(found["q1"]) else "OVER (spread)"


# --- the OpenBLAS builds that are measured

BUILDS = {
    "Debian": ("0.3.21, own threads", "/usr/lib/*/openblas-pthread/libopenblas.so.0"),
    "Debian OpenMP": ("0.3.21, OpenMP", "/usr/lib/*/openblas-openmp/libopenblas.so.0"),
    "numpy 2.4 wheel": ("numpy 2.4's", "{wheels}/numpy-2.4/numpy.libs/*openblas*.so*"),
    "0.3.34 wheel": ("scipy-openblas64's", "{wheels}/openblas64/*/lib/*openblas*.so*"),
}


def names_of(path):
    """Returns the programs' options for an OpenBLAS: its path, and the prefix and suffix of its names.
    Returns None for a library that is not OpenBLAS."""
    content = Path(path).read_bytes()
    for prefix, suffix in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
        if f"\0{prefix}openblas_get_config{suffix}\0".encode() in content:
            return [f"--blas={path}", f"--prefix={prefix}", f"--suffix={suffix}"]
    return None


def openblas_builds(bench, *labels):
    """Yields (label, options of the programs) for each build that is installed, and adds a row that
    says "skipped" for each that is not."""
    for label in labels or BUILDS:
        pattern = BUILDS[label][1].format(wheels=bench.build / "wheels")
        for path in glob.glob(pattern):
            if names_of(path):
                yield label, names_of(path)
                break
        else:
            bench.skip(label, "this OpenBLAS is not installed (sh bench/run.sh fetches it)")
