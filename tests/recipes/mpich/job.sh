#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# job.sh PROGRAM [ARG...]
exec mpiexec.mpich -n 2 \
  -genv LD_PRELOAD /usr/lib/forksafe/libforksafe.so \
  /srv/venv/bin/python "$@"
