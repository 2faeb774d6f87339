# SPDX-License-Identifier: Apache-2.0
# modules_inside.bash VERSION PROFILE SOURCE SUFFIX plain|preload: modules.sh runs this with bash in a tree. It
# installs forksafe.SOURCE under both names and loads one of them.
set -eu
version=$1 source=$3 suffix=$4 which=$5
prefix=/opt/forksafe/$version

fail() {
  echo "$*"
  exit 1
}

for name in forksafe forksafe-preload; do
  mkdir -p "/opt/modules/$name"
  cp "/forksafe/packaging/modulefiles/forksafe.$source" "/opt/modules/$name/$version$suffix"
done

# No -u, because the module systems read variables that are not set.
set +u
export OMP_NUM_THREADS=4
. "$2"
unset MANPATH LD_PRELOAD KMP_INIT_AT_FORK
module use /opt/modules
module avail 2>&1

# Leaves out the variables in which the module systems keep their own notes, and functions that bash exports.
environment() {
  env | grep -vE '^(_|_?_?LMOD.*|_ModuleTable.*|__MODULES.*|LOADEDMODULES|_LMFILES_|BASH_FUNC_.*)=|^[ }]' | sort
}

pool() { timeout "$1" python3 /forksafe/tests/scenarios/pool.py 20; }

before=$(environment)
case $which in
  plain)
    module load forksafe
    [ "$(command -v forksafe)" = "$prefix/bin/forksafe" ] || fail "not in PATH: $PATH"
    # Lmod writes an empty entry at the end as two colons.
    case $MANPATH in
      "$prefix/share/man:" | "$prefix/share/man::") ;;
      *) fail "MANPATH: $MANPATH" ;;
    esac
    [ -z "${LD_PRELOAD:-}" ] || fail "LD_PRELOAD: $LD_PRELOAD"
    forksafe true
    module unload forksafe
    ;;
  preload)
    status=0
    pool 10 || status=$?
    [ $status -eq 124 ] || fail "without forksafe the Pool did not hang, but ended with status $status"
    module load forksafe-preload
    [ "$LD_PRELOAD" = "$prefix/lib/forksafe/libforksafe.so" ] || fail "LD_PRELOAD: $LD_PRELOAD"
    [ "$KMP_INIT_AT_FORK" = TRUE ] || fail "KMP_INIT_AT_FORK: $KMP_INIT_AT_FORK"
    pool 120
    module unload forksafe-preload
    ;;
esac
after=$(environment)
[ "$before" = "$after" ] || fail "unload left another environment: $(diff <(echo "$before") <(echo "$after"))"

if [ "$which" = preload ]; then
  # load keeps what the user has set, and unload restores it.
  export LD_PRELOAD=libm.so.6 KMP_INIT_AT_FORK=FALSE
  module load forksafe-preload
  [ "$LD_PRELOAD" = "$prefix/lib/forksafe/libforksafe.so:libm.so.6" ] || fail "LD_PRELOAD: $LD_PRELOAD"
  [ "$KMP_INIT_AT_FORK" = FALSE ] || fail "KMP_INIT_AT_FORK: $KMP_INIT_AT_FORK"
  module unload forksafe-preload
  [ "$LD_PRELOAD $KMP_INIT_AT_FORK" = 'libm.so.6 FALSE' ] || fail "left: $LD_PRELOAD $KMP_INIT_AT_FORK"
fi
