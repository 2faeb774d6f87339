# SPDX-License-Identifier: Apache-2.0
"""results.py FOLDER TREES SUITE...: collects the results of the tests in each tree into FOLDER/results.json.

Prints a line for each suite (Debian's word for a release), and the names of the tests that failed. Exit
status 0: no test failed, and each suite has run.
"""
import json
import pathlib
import re
import sys

PASSED = ('OK', 'EXPECTEDFAIL')
ORDER = ('bullseye', 'trixie', 'sid')


def read_suite(tree):
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


folder = pathlib.Path(sys.argv[1])
results_file = folder / 'results.json'
results = json.loads(results_file.read_text()) if results_file.exists() else {}
well = True
columns = '{:10} {:7} {:8} {:9} {:9} {:8} {:>6} {:>6} {:>7}'
print(columns.format('suite', 'glibc', 'libgomp', 'OpenBLAS', 'LLVM', 'Python', 'passed', 'failed',
                     'skipped'))
trees = pathlib.Path(sys.argv[2])
for suite in sys.argv[3:]:
    results[suite] = result = read_suite(trees / f'layers/distros-{suite}/changes/forksafe')
    versions = result['versions']
    print(columns.format(suite, versions['glibc'], versions['libgomp'], versions['OpenBLAS'],
                         versions['LLVM-OpenMP'], versions['Python'], result['passed'],
                         len(result['failed']), len(result['skipped'])))
    for test in result['failed']:
        print(f"  {test['result']}: {test['name']}")
    if not result['passed']:
        print('  no test was run')
    well = well and result['passed'] and not result['failed']
results = {suite: results[suite] for suite in ORDER if suite in results}
results_file.write_text(json.dumps(results, indent=2) + '\n')
sys.exit(0 if well else 1)
