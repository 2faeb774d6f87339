# SPDX-License-Identifier: Apache-2.0
# Runs a Python program with two ranks under Open MPI: mpirun.sh PROGRAM [ARG...]
program=$(dirname "$0")/$1
shift
# All files of the run are in this folder, which run_case.py removes even if it has to kill the run.
export TMPDIR="$WILD_FOLDER" OMPI_MCA_btl_vader_backing_directory="$WILD_FOLDER"
exec mpirun --allow-run-as-root --oversubscribe --bind-to none -n 2 /usr/bin/python3 "$program" "$@"
