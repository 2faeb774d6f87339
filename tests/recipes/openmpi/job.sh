#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# job.sh PROGRAM [ARG...]
export TMPDIR=/srv/app OMPI_MCA_btl_vader_backing_directory=/srv/app
exec mpirun --allow-run-as-root --oversubscribe --bind-to none -n 2 \
  -x LD_PRELOAD=/usr/lib/forksafe/libforksafe.so \
  /usr/bin/python3 "$@"
