# SPDX-License-Identifier: Apache-2.0
# Two ranks of a Python program under Open MPI: mpirun.sh PROGRAM [ARG...]
program=$(dirname "$0")/$1
shift
# Nothing outside of this folder, which the harness removes, is left by a run that it has to end.
export TMPDIR="$WILD_FOLDER" OMPI_MCA_btl_vader_backing_directory="$WILD_FOLDER"
exec mpirun --allow-run-as-root --oversubscribe --bind-to none -n 2 /usr/bin/python3 "$program" "$@"
