# SPDX-License-Identifier: Apache-2.0
# Starts a cluster, and then a driver that has the library: driver.sh PROGRAM [ARG...]
set -eu
export RAY_ADDRESS=127.0.0.1:26379
ray start --head --port="${RAY_ADDRESS#*:}" --num-cpus=2 --include-dashboard=false \
  --temp-dir="$WILD_FOLDER" >&2
LD_PRELOAD=/usr/lib/forksafe/libforksafe.so \
python3 job.py trap/runtime_env.yaml "$@"
