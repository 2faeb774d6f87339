# SPDX-License-Identifier: Apache-2.0
"""The results of the tests in the trees of distros.sh and architectures.sh.

tree_results.py collect FOLDER NAME=FILES...
    Adds the results of each tree to FOLDER/results.json. A tree has the name of its release or
    architecture; its build folder, and the file "versions", are in FILES. Prints a line for each, and
    the names of the tests that failed. Exit status 0: no test failed, and all have run.

tree_results.py report BUILD
    Writes the results in BUILD into docs/systems.md. A table whose script has not run stays as it is.
"""
import json
import pathlib
import re
import sys

PASSED = ('OK', 'EXPECTEDFAIL')
ORDER = ('bullseye', 'trixie', 'sid', 'arm64', 'ppc64el', 's390x', 'riscv64', 'armhf', 'i386')
VERSIONS = ('glibc', 'libgomp', 'OpenBLAS', 'BLIS', 'LLVM-OpenMP', 'Python')
DOCUMENT = pathlib.Path(__file__).resolve().parents[1] / 'docs/systems.md'


def read_results(tree):
    versions = dict(line.split('=', 1) for line in (tree / 'versions').read_text().splitlines())
    result = {'versions': versions, 'passed': 0, 'failed': [], 'skipped': []}
    if not (tree / 'ended').exists():
        result['failed'].append({'name': 'the run did not finish', 'result': 'FAIL'})
    log = tree / 'build/meson-logs/testlog.json'
    for line in log.read_text().splitlines() if log.exists() else []:
        test = json.loads(line)
        # Meson writes "forksafe:SUITE / NAME" (also SUITE+SUITE); meson 1.12 "SUITE - forksafe:NAME".
        name = re.sub(r'^.*?forksafe:([\w+]+ / )?', '', test['name'])
        if test['result'] in PASSED:
            result['passed'] += 1
        elif test['result'] == 'SKIP':
            reason = test.get('stdout', '').strip().splitlines()
            result['skipped'].append({'name': name, 'reason': reason[-1] if reason else ''})
        else:
            result['failed'].append({'name': name, 'result': test['result']})
    return result


def collect(folder, trees):
    results_file = folder / 'results.json'
    results = json.loads(results_file.read_text()) if results_file.exists() else {}
    well = True
    columns = '{:10} ' + '{:11} ' * len(VERSIONS) + '{:>6} {:>6} {:>7}'
    print(columns.format('', *VERSIONS, 'passed', 'failed', 'skipped'))
    for name, files in trees:
        results[name] = result = read_results(pathlib.Path(files))
        print(columns.format(name, *(result['versions'][of] for of in VERSIONS), result['passed'],
                             len(result['failed']), len(result['skipped'])))
        for test in result['failed']:
            print(f"  {test['result']}: {test['name']}")
        if not result['passed']:
            print('  no test was run')
        well = well and result['passed'] and not result['failed']
    results = {name: results[name] for name in ORDER if name in results}
    results_file.write_text(json.dumps(results, indent=2) + '\n')
    return well


def table(results):
    rows = [['', *VERSIONS, 'tests passed', 'failed', 'skipped'], ['---'] * (len(VERSIONS) + 4)]
    for name, result in results.items():
        rows.append([name, *(result['versions'][of] for of in VERSIONS), str(result['passed']),
                     '; '.join(test['name'] for test in result['failed']) or 'none',
                     str(len(result['skipped']))])
    return ''.join('| ' + ' | '.join(row) + ' |\n' for row in rows)


def report(build):
    text = DOCUMENT.read_text()
    for kind in ('distros', 'architectures'):
        results_file = build / kind / 'results.json'
        if results_file.exists():
            begin = f'<!-- written from the results of scripts/{kind}.sh -->\n'
            before, _, rest = text.partition(begin)
            _, end, after = rest.partition('<!-- end -->')
            text = before + begin + table(json.loads(results_file.read_text())) + end + after
    DOCUMENT.write_text(text)


if sys.argv[1] == 'collect':
    sys.exit(not collect(pathlib.Path(sys.argv[2]), [a.split('=', 1) for a in sys.argv[3:]]))
report(pathlib.Path(sys.argv[2]))
