# SPDX-License-Identifier: Apache-2.0
# Starts a cluster of this machine alone, and runs a command in it: slurm.sh COMMAND...
set -eu
export SLURM_CONF="$PWD/slurm.conf"
sed -i "s|NODE|$(hostname -s)|" slurm.conf
mkdir state spool
(umask 077 && head -c 1024 /dev/urandom >munge.key)
munged --foreground --force --num-threads=2 --key-file="$PWD/munge.key" --socket="$PWD/munge.socket" \
  --pid-file="$PWD/munge.pid" --log-file="$PWD/munge.log" --seed-file="$PWD/munge.seed" >&2 &
while [ ! -S munge.socket ]; do sleep 0.1; done
slurmctld -D >&2 &
slurmd -D >&2 &
tries=0
until sinfo --noheader --format=%t 2>&1 | grep -qx 'idle'; do
  tries=$((tries + 1))
  [ $tries -lt 300 ] || { cat slurmctld.log slurmd.log >&2; exit 1; }
  sleep 0.2
done
status=0
"$@" || status=$?
# Ends the three servers. run_recipe.py ends whatever their jobs leave behind.
for server in $(jobs -p); do
  kill "$server" && wait "$server" || true
done
exit $status
