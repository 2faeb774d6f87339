# SPDX-License-Identifier: Apache-2.0
"""What the areas share: processes with a time-out, the variants that are compared, pairs, and the
rows of the table."""
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
from pathlib import Path

HERE = Path(__file__).resolve().parent
TIMEOUT_S = 120
LOOK_S = 10  # how long a process may take before somebody looks whether it is stuck


class Failed(Exception):
    """A cell could not be measured."""


class Hung(Failed):
    """`forksafe diagnose` says that the process is stuck."""


def run_process(command, environment, timeout=TIMEOUT_S, forksafe=None):
    """What a process wrote to standard output and standard error. It leads a group of its own, which
    is killed and reaped whatever happens: children of a hanging pool outlive their parent. `forksafe`
    is the command that is asked now and then whether it hangs or is just slow."""
    # Files, not pipes: a child that outlives its parent would hold a pipe open.
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
    """What `forksafe diagnose` says of the first process of the tree that is stuck, or nothing."""
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
    """The leader was not waited for yet, so the group's number is still its own. Orphans of the group
    come to us (run.py is a subreaper)."""
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


def in_turns(rounds, *measurements):
    """Calls each measurement once a round, every round in another order, so that what else runs on
    the machine falls on all: with two of them pairs in swapped order. One list of results for each."""
    results = [[None] * rounds for _ in measurements]
    count = len(measurements)
    for turn in range(rounds):
        order = [(turn + i) % count for i in range(count)]
        for which in order if turn // count % 2 == 0 else reversed(order):
            results[which][turn] = measurements[which]()
    return results


class Bench:
    """The build that is measured, and the rows that are found."""

    def __init__(self, build, quick, library=None):
        self.build = Path(build).resolve()
        self.quick = quick
        self.library = Path(library).resolve() if library else self.build / "shim/libforksafe.so"
        self.command = self.build / "cli/forksafe"
        self.programs = self.build / "bench/programs"
        self.libomp = next(iter(glob.glob("/usr/lib/*/libomp.so.5")), None)
        python = self.build / "wild/science/bin/python"  # scripts/test.sh --wild has the same
        self.python = python if python.exists() else None
        self.rows = []

    # --- what runs

    def preload(self, name):
        return self.programs / f"lib{name}.so"

    def variables(self, variant):
        """What a variant sets. Each has a preload, an empty one where it needs none."""
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
        """The caller's, without what would choose another number of threads or another preload."""
        environment = {name: value for name, value in os.environ.items()
                       if not re.match("(FORKSAFE|OMP_|GOMP_|KMP_|LD_|MALLOC_|PYTHON|VIRTUAL_ENV)",
                                       name) and not name.endswith("_NUM_THREADS")}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"  # loky's workers take no -B
        environment.update({name: str(value) for name, value in self.variables(variant).items()})
        return environment

    def program(self, name, *options, variant="forksafe", timeout=TIMEOUT_S):
        """The JSON that a benchmark program prints."""
        command = [self.programs / name, *options]
        return json.loads(run_process(command, self.environment(variant), timeout,
                                      self.command)[0])

    def workload(self, name, *arguments, variant="stock", timeout=TIMEOUT_S):
        """The JSON lines that a program of workloads/ prints, in one dictionary."""
        command = [self.python, "-s", "-B", HERE / "workloads" / name, *arguments]
        output, complaint = run_process(command, self.environment(variant), timeout, self.command)
        result = {}
        for line in output.splitlines():
            result.update(json.loads(line))
        # Of a library that does not know an option.
        said = re.search(r"^forksafe\[\d+\]: (.*FORKSAFE_CHILD_THREADS.*)", complaint, re.M)
        result["complaint"] = said[1] if said else None
        return result

    # --- what is found

    @contextlib.contextmanager
    def cell(self, what):
        """One cell that fails is a line of the table, not the end of the run."""
        try:
            yield
        except (Failed, subprocess.SubprocessError, OSError, ValueError, KeyError) as error:
            self.rows.append({"what": what, "error": f"{type(error).__name__}: {error}"})
            print(f"{what:<72} FAILED: {error}", flush=True)

    def skip(self, what, why):
        self.rows.append({"what": what, "skipped": why})
        print(f"{what:<72} skipped: {why}", flush=True)

    def hangs(self, what, why, **more):
        """Stock, or another variant that we are compared with, does not get through."""
        self.rows.append({"what": what, "hangs": str(why), **more})
        print(f"{what:<72}   hangs ({why})", flush=True)

    def add(self, what, ratio, measured, against, unit="us", bar=None, below=False, **more):
        """A ratio with its quartiles and, where there is one, its bar: at most so much, or (below)
        less. `more` goes to the JSON: what the report finds the row by."""
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
    # Where a quarter of the pairs are within the bar, the spread decides, not the library.
    return "OVER" if over(found["q1"]) else "OVER (spread)"


# --- the OpenBLAS builds that are measured

BUILDS = {
    "Debian": ("0.3.21, own threads", "/usr/lib/*/openblas-pthread/libopenblas.so.0"),
    "Debian OpenMP": ("0.3.21, OpenMP", "/usr/lib/*/openblas-openmp/libopenblas.so.0"),
    "numpy 2.4 wheel": ("numpy 2.4's", "{wheels}/numpy-2.4/numpy.libs/*openblas*.so*"),
    "0.3.34 wheel": ("scipy-openblas64's", "{wheels}/openblas64/*/lib/*openblas*.so*"),
}


def names_of(path):
    """What a build has around its names, or None for a library that is no OpenBLAS."""
    content = Path(path).read_bytes()
    for prefix, suffix in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
        if f"\0{prefix}openblas_get_config{suffix}\0".encode() in content:
            return [f"--blas={path}", f"--prefix={prefix}", f"--suffix={suffix}"]
    return None


def openblas_builds(bench, *labels):
    """(label, options of the programs) of each build that is here; of the others, a named skip."""
    for label in labels or BUILDS:
        pattern = BUILDS[label][1].format(wheels=bench.build / "wheels")
        for path in glob.glob(pattern):
            if names_of(path):
                yield label, names_of(path)
                break
        else:
            bench.skip(label, "this OpenBLAS is not here (sh bench/run.sh fetches it)")
