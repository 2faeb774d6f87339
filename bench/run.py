# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmark programs of a build folder and prints ratios with their spread.

Everything is measured in pairs, with and without, in swapped order: other work on the machine
falls on both sides. Called by run.sh.
"""

import argparse
import glob
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile

TIMEOUT_S = 120


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('build')
    parser.add_argument('--quick', action='store_true', help='few repetitions: does it run at all')
    parser.add_argument('--only', default='', help='start-up, command, fork, flight or dgemm')
    parser.add_argument('--library', help='another build of the library')
    return parser.parse_args()


def names_of(path):
    """What a build has around its names, or None for a library that is no OpenBLAS."""
    with open(path, 'rb') as file:
        content = file.read()
    for prefix, suffix in (('scipy_', '64_'), ('scipy_', ''), ('', '64_'), ('', '')):
        if f'\0{prefix}openblas_get_config{suffix}\0'.encode() in content:
            return [f'--blas={path}', f'--prefix={prefix}', f'--suffix={suffix}']
    return None


def find_blas(build):
    """(label, options) of Debian's builds and of the wheels' under BUILD_DIR/wheels."""
    result = []
    for kind in ('pthread', 'openmp'):
        for path in glob.glob(f'/usr/lib/*/openblas-{kind}/libopenblas.so.0'):
            result.append((f'Debian {kind}', names_of(path)))
    seen = set()
    wheels = os.path.join(build, 'wheels')
    for path in sorted(glob.glob(os.path.join(wheels, '**', '*openblas*.so*'), recursive=True)):
        name = os.path.basename(path)
        if name in seen or not os.path.isfile(path) or names_of(path) is None:
            continue
        seen.add(name)
        result.append((name.split('.so')[0].replace('lib', '', 1), names_of(path)))
    return result


def spread(values):
    low, middle, high = statistics.quantiles(values, n=4, method='inclusive')
    return {'median': middle, 'q1': low, 'q3': high, 'count': len(values)}


class Bench:
    def __init__(self, arguments):
        self.programs = os.path.join(os.path.abspath(arguments.build), 'bench')
        self.library = arguments.library or os.path.join(
            os.path.abspath(arguments.build), 'shim', 'libforksafe.so')
        self.command = os.path.join(os.path.abspath(arguments.build), 'cli', 'forksafe')
        self.quick = arguments.quick
        self.rows = []

    def preload(self, name):
        return os.path.join(self.programs, f'lib{name}.so')

    def run(self, program, options, preload=None):
        environment = {k: v for k, v in os.environ.items() if not k.startswith('FORKSAFE')}
        environment.pop('LD_PRELOAD', None)
        if preload is not None:
            environment['LD_PRELOAD'] = preload
        done = subprocess.run([os.path.join(self.programs, program), *options], env=environment,
                              stdout=subprocess.PIPE, timeout=TIMEOUT_S, check=True)
        return json.loads(done.stdout)

    def attempt(self, measure, what, *arguments):
        """One cell that fails is a line of the table, not the end of the run."""
        try:
            measure(what, *arguments)
        except (subprocess.SubprocessError, OSError) as error:
            self.rows.append({'what': what, 'error': str(error)})
            print(f'{what:<72} FAILED: {error}', flush=True)

    def add(self, what, ratio, with_us, against_us, bar=None, **more):
        row = {'what': what, 'ratio': ratio, 'with_us': with_us, 'against_us': against_us,
               'bar': bar, **more}
        self.rows.append(row)
        limit = '' if bar is None else f'<= {bar:g}'
        if bar is not None and ratio['median'] > bar:
            # Where a quarter of the pairs are within the bar, the spread decides, not the library.
            limit += '  OVER' if ratio['q1'] > bar else '  unclear, busy machine?'
        print(f"{what:<72} {ratio['median']:7.3f}  [{ratio['q1']:.3f} {ratio['q3']:.3f}]"
              f'  {with_us:10.2f} {against_us:10.2f}  {limit}', flush=True)

    def start_up(self, what):
        pairs = 100 if self.quick else 1500
        result = self.run('start_up', [f'--preload={self.library}', f'--pairs={pairs}',
                                       f"--against={self.preload('empty')}"])
        self.add(what, result['ratio'], result['with_us']['median'],
                 result['without_us']['median'], 1.2, detail=result)

    def hyperfine(self, *commands, runs):
        """The times of each run of each command, in ms; status 1 is an answer of diagnose."""
        with tempfile.NamedTemporaryFile('r', encoding='utf-8') as results:
            subprocess.run(['hyperfine', '-N', '--warmup=5', f'--runs={runs}', '--ignore-failure',
                            '--style=none', '--export-json', results.name, *commands],
                           capture_output=True, timeout=TIMEOUT_S, check=True)
            return [[1000 * time for time in result['times']]
                    for result in json.load(results)['results']]

    def add_ms(self, what, times, bar):
        found = spread(times)
        self.rows.append({'what': what, 'ms': found, 'bar_ms': bar})
        print(f"{what:<72} {found['median']:7.2f} ms  [{found['q1']:.2f} {found['q3']:.2f}]"
              f"  <= {bar:g} ms{'  OVER' if found['median'] > bar else ''}", flush=True)

    def wrapper(self, what):
        # In short turns: what else runs on the machine falls on both.
        rounds, runs = (3, 10) if self.quick else (20, 50)
        more = []
        for _ in range(rounds):
            ours, plain = self.hyperfine(f'{self.command} true',
                                         f'env LD_PRELOAD={self.library} true', runs=runs)
            more.append(statistics.median(ours) - statistics.median(plain))
        self.add_ms(what, more, 2)

    def crowd(self, what, subcommand):
        with tempfile.TemporaryDirectory() as folder:
            crowd = subprocess.Popen(
                [os.path.join(self.programs, 'crowd'), f'--folder={folder}',
                 f"--object={self.preload('crowd_object')}"], stdout=subprocess.PIPE, text=True)
            try:
                if crowd.stdout.readline() != 'ready\n':
                    raise OSError('crowd did not start')
                times, = self.hyperfine(f'{self.command} {subcommand} {crowd.pid}',
                                        runs=5 if self.quick else 20)
            finally:
                crowd.kill()
                crowd.communicate()
        self.add_ms(what, times, 1000)

    def idle_fork(self, what, blas, options, library, bar):
        # Where things lie in memory, and so what shares a page, differs from process to process:
        # the ratio of each process is the median of its pairs.
        rounds, pairs = (2, 30) if self.quick else (9, 100)
        results = [self.run('fork_cost', [*blas, *options, f'--pairs={pairs}'], library)
                   for _ in range(rounds)]
        self.add(what, spread([r['ratio']['median'] for r in results]),
                 statistics.median(r['fork_us']['median'] for r in results),
                 statistics.median(r['bare_us']['median'] for r in results), bar, detail=results)

    def flight_fork(self, what, blas, threads):
        # No ratio has a bar here: fork() waits for calls that _Fork() tears apart.
        rounds, pairs = (2, 10) if self.quick else (5, 30)
        results = [self.run('fork_cost', [*blas, f'--flight={threads}', f'--pairs={pairs}'],
                            self.library) for _ in range(rounds)]
        first = spread([r['first_fork_us'] for r in results])
        self.add(what, spread([r['ratio_of_medians'] for r in results]),
                 statistics.median(r['fork_us']['median'] for r in results),
                 statistics.median(r['bare_us']['median'] for r in results),
                 first_fork_us=first, detail=results)
        print(f"{'':<4}first fork {first['median']:.0f} us [{first['q1']:.0f} {first['q3']:.0f}], "
              f"slowest {max(r['slowest_fork_us'] for r in results):.0f} us", flush=True)

    def dgemm(self, what, blas, n, callers, bar):
        pairs, ms = (3, 100) if self.quick else (21, 300)
        options = [*blas, f'--n={n}', f'--callers={callers}', f'--ms={ms}']
        with_all, without_all = [], []
        for pair in range(pairs):
            for turn in range(2):
                if (pair + turn) % 2 == 0:
                    with_all.append(self.run('dgemm_loop', options, self.library))
                else:
                    without_all.append(self.run('dgemm_loop', options, self.preload('empty')))
        column = lambda results, key: [result[key] for result in results]
        ratios = {key: [w / o for w, o in zip(column(with_all, key), column(without_all, key))]
                  for key in ('us', 'cpu_us')}
        with_us = statistics.median(column(with_all, 'us'))
        without_us = statistics.median(column(without_all, 'us'))
        cpu = spread(ratios['cpu_us'])
        self.add(what, spread(ratios['us']), with_us, without_us, bar, cpu_ratio=cpu,
                 ratio_of_medians=with_us / without_us, with_all=with_all,
                 without_all=without_all)
        least = min(column(with_all, 'us')) / min(column(without_all, 'us'))
        print(f"{'':<4}ratio of medians {with_us / without_us:.3f}, of minima {least:.3f}, "
              f"of CPU time {cpu['median']:.3f} [{cpu['q1']:.3f} {cpu['q3']:.3f}]", flush=True)


def main():
    arguments = parse_arguments()
    bench = Bench(arguments)
    wanted = lambda part: arguments.only in ('', part)
    print(f"{'':<72}   ratio  [quartiles]      with us  against us  bar", flush=True)
    if wanted('start-up'):
        bench.attempt(bench.start_up, '/bin/true, against an empty preload')
    if wanted('command') and shutil.which('hyperfine') is None:
        print('no hyperfine, the command is not measured: apt-get install hyperfine',
              file=sys.stderr)
    elif wanted('command'):
        bench.attempt(bench.wrapper, 'forksafe true, more than env LD_PRELOAD=... true')
        for subcommand in ('list', 'diagnose'):
            bench.attempt(bench.crowd, f'forksafe {subcommand}: 200 threads, 300 objects',
                          subcommand)
    found = find_blas(arguments.build)
    if not found:
        print('no OpenBLAS found: apt-get install libopenblas0-pthread libopenblas0-openmp',
              file=sys.stderr)
    for label, blas in found:
        if wanted('fork'):
            bench.attempt(bench.idle_fork, f'{label}: fork, sleeping pool, against _Fork', blas,
                          [], bench.library, 1.25)
            bench.attempt(bench.idle_fork, f'{label}: the same, no handlers at all', blas, [],
                          bench.preload('no_handlers'), None)
            bench.attempt(bench.idle_fork, f'{label}: fork, 200 MB resident, against _Fork', blas,
                          ['--resident-mb=200'], bench.library, 1.25)
        if wanted('flight'):
            for threads in (1, 3):
                bench.attempt(bench.flight_fork,
                              f'{label}: fork, {threads} in dgemm n=600, against _Fork', blas,
                              threads)
        if wanted('dgemm'):
            # n = 200 runs on the pool, which on a busy machine waits for cores: no bar.
            for n, callers, bar in ((64, 1, 1.01), (64, 4, 1.01), (200, 1, None)):
                bench.attempt(bench.dgemm,
                              f'{label}: dgemm n={n}, {callers} calling, against stock', blas, n,
                              callers, bar)
    output = os.path.join(arguments.build, 'bench.json')
    with open(output, 'w', encoding='utf-8') as file:
        json.dump({'machine': platform.platform(), 'libc': platform.libc_ver()[1],
                   'cores': os.cpu_count(), 'rows': bench.rows}, file, indent=1)
        file.write('\n')
    print(f'written: {output}')
    return 1 if any('error' in row for row in bench.rows) else 0


if __name__ == '__main__':
    sys.exit(main())
