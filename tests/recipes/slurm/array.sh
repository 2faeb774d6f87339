# SPDX-License-Identifier: Apache-2.0
# Submits a job array of two tasks, each of which runs a Python program, and prints what they print:
# array.sh PROGRAM [ARG...]
set -eu
sbatch --wait --array=0-1 --output=task-%a job.sh "$@" >&2
cat task-0 task-1
