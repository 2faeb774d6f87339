#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh scripts/upstream_patches.sh [libgomp] [openblas]: proves the patches of docs/upstream (default: both).
# See docs/upstream.md.
#
# It fetches Debian's sources of gcc-12 and openblas (90 MB), builds libgomp and OpenBLAS (on its own
# threads and on OpenMP) without and with the patch, and runs programs that fork on each build, always
# without this project's library. All files stay in BUILD/upstream. It takes ten minutes on one idle
# processor.
#
# Exit status 0: each program hangs or fails without the patch, and passes with it.
. "$(dirname "$0")/common.sh"

[ $# -gt 0 ] || set -- libgomp openblas
for project in "$@"; do
  case $project in
    libgomp | openblas) ;;
    *) fail "no such patch: $project (known: libgomp, openblas)" ;;
  esac
done
# OpenBLAS's OpenMP build needs the patched libgomp too.
case $* in *openblas*) set -- libgomp openblas ;; esac

need_packages $build_packages patch make xz-utils

upstream=$build/upstream
mkdir -p "$upstream"
log=$upstream/build.log
: >"$log"

# logged COMMAND...: runs the command with its output in the log. Ends the script if the command fails.
logged() {
  "$@" >>"$log" 2>&1 </dev/null || {
    tail -n 15 "$log" >&2
    fail "failed: $* (see $log)"
  }
}

# fetch_tar PACKAGE: fetches the upstream part of Debian's source package to BUILD/upstream/PACKAGE.tar.
# Most systems have no lists of source packages, so this function fetches lists of its own and leaves the
# system's alone.
fetch_tar() {
  [ -f "$upstream/$1.tar" ] && return 0
  say "fetching the source of $1"
  part=$upstream/$1.part
  rm -rf "$part"
  mkdir -p "$part/lists/partial"
  # shellcheck disable=SC2016 # $(...) is for apt, not for the shell
  apt-get indextargets --format 'deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' \
    'Label: Debian' 2>/dev/null | head -n 1 >"$part/sources.list"
  options="-o Dir::Etc::SourceList=$part/sources.list -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists=$part/lists -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
    -o APT::Sandbox::User=root"
  # shellcheck disable=SC2086
  (cd "$part" && apt-get -q $options update &&
    apt-get -q $options source --download-only --tar-only "$1" &&
    mv ./*.orig.tar.* "$upstream/$1.tar") >>"$log" 2>&1 </dev/null ||
    fail "Debian's source of $1 is not available (see $log)"
  rm -rf "$part"
}

# source_tree PROJECT with|without: makes the folder BUILD/upstream/PROJECT-with or -without the patch, and
# makes it anew if the patch has changed.
source_tree() {
  tree=$upstream/$1-$2
  patch=$root/docs/upstream/$1.patch
  if [ -f "$tree.patch" ] && { [ "$2" = without ] || cmp -s "$patch" "$tree.patch"; }; then
    return 0
  fi
  rm -rf "$tree" "$tree.patch" "$upstream/build-$1"*"-$2"
  mkdir -p "$tree"
  "unpack_$1"
  [ "$2" = without ] || logged patch --strip=1 --directory="$tree" --input="$patch"
  cp "$patch" "$tree.patch"
}

# Unpacks the part of GCC's sources that libgomp needs to be built by itself.
unpack_libgomp() {
  logged tar -C "$tree" --strip-components=1 -xf "$upstream/gcc-12.tar" --wildcards '*/gcc-*.tar.xz'
  logged tar -C "$tree" --strip-components=1 -xf "$tree"/gcc-*.tar.xz --wildcards \
    --exclude='gcc-*/libgomp/testsuite/lib*.*/*' 'gcc-*/libgomp' 'gcc-*/config' 'gcc-*/include' \
    'gcc-*/gcc/BASE-VER' 'gcc-*/compile' 'gcc-*/config[-.]*' 'gcc-*/depcomp' 'gcc-*/install-sh' \
    'gcc-*/l*t*.m4' 'gcc-*/ltmain.sh' 'gcc-*/missing' 'gcc-*/m*-if-change' 'gcc-*/multilib.am'
  rm "$tree"/gcc-*.tar.xz
}

unpack_openblas() { logged tar -C "$tree" --strip-components=1 -xf "$upstream/openblas.tar"; }

# build_libgomp with|without: builds libgomp, and sets $library to its folder.
build_libgomp() {
  source_tree libgomp "$1"
  folder=$upstream/build-libgomp-$1
  library=$folder/.libs
  [ -f "$library/libgomp.so.1" ] && return 0
  say "building libgomp $1 the patch"
  rm -rf "$folder"
  mkdir -p "$folder"
  (
    cd "$folder" || exit 1
    logged nice "$tree/libgomp/configure" --disable-multilib CFLAGS='-O2 -g'
    logged nice make -j1
  ) || exit 2
}

# build_openblas with|without OPENMP: builds OpenBLAS in double precision, with USE_OPENMP=OPENMP (0 or 1),
# and sets $library to its path. The library is linked by hand, because "make shared" needs LAPACK, which is
# not in Debian's source package.
build_openblas() {
  source_tree openblas "$1"
  folder=$upstream/build-openblas-openmp$2-$1
  library=$folder/libopenblas.so.0
  [ -f "$library" ] && return 0
  say "building OpenBLAS $1 the patch, USE_OPENMP=$2"
  rm -rf "$folder"
  cp -r "$tree" "$folder"
  target=
  # OpenBLAS's kernels for AVX-512 do not build in double precision alone, so use those for AVX2.
  grep -q '^flags.* avx2 ' /proc/cpuinfo && target=TARGET=HASWELL
  # shellcheck disable=SC2086
  logged nice make -C "$folder" libs $target DYNAMIC_ARCH=0 NUM_THREADS=64 BUILD_DOUBLE=1 NOFORTRAN=1 \
    NO_LAPACKE=1 USE_OPENMP="$2" MAKE_NB_JOBS=1
  openmp=
  [ "$2" = 0 ] || openmp=-fopenmp
  # shellcheck disable=SC2086
  logged gcc -shared -o "$library" -Wl,-soname,libopenblas.so.0 -Wl,-z,defs -Wl,--whole-archive \
    "$folder/libopenblas.a" -Wl,--no-whole-archive -lm -lpthread $openmp
}

# watch SECONDS COMMAND...: runs the command, and sets $outcome to "passes", "fails" or "hangs". It hangs if
# it writes no output for that many seconds. Then it is killed, and so is every process that it started.
watch() {
  patience=$(($1 * 4))
  shift
  timeout --kill-after=5 900 "$@" >"$upstream/out" 2>"$upstream/err" </dev/null &
  running=$!
  size=-1
  still=0
  outcome=
  while kill -0 "$running" 2>/dev/null; do
    sleep 0.25
    now=$(wc -c <"$upstream/out")
    if [ "$now" -eq "$size" ]; then still=$((still + 1)); else still=0; fi
    size=$now
    if [ "$still" -ge "$patience" ]; then
      outcome=hangs
      kill "$running" 2>/dev/null # timeout ends its whole group
      break
    fi
  done
  wait "$running" 2>/dev/null
  status=$?
  running=
  [ -n "$outcome" ] && return 0
  if [ "$status" -eq 0 ]; then outcome=passes; else outcome=fails; fi
}
running=
trap '[ -z "$running" ] || kill "$running" 2>/dev/null' EXIT
trap 'exit 130' INT TERM

# prove NAME LIBGOMP-WITHOUT LIBGOMP-WITH PROGRAM ARGUMENT...: runs the program without and with the patch.
# OPENBLAS in an argument is replaced by the path of the OpenBLAS without or with the patch.
unexpected=0
prove() {
  name=$1
  gomp_without=$2
  gomp_with=$3
  shift 3
  # A fork between two calls is harmless, so a run without the patch may pass by luck. It has three tries.
  for _ in 1 2 3; do
    outcome_with "$gomp_without" without 10 "$@"
    without=$outcome
    [ "$without" = passes ] || break
  done
  outcome_with "$gomp_with" with 60 "$@"
  printf '%-62s %-8s %s\n' "$name" "$without" "$outcome"
  if [ "$without" = passes ] || [ "$outcome" != passes ]; then unexpected=$((unexpected + 1)); fi
}

# outcome_with LIBGOMP with|without SECONDS PROGRAM ARGUMENT...: runs the program once, and sets $outcome.
outcome_with() {
  path=$1
  blas_path=$upstream/build-openblas-openmp${openmp_build:-0}-$2/libopenblas.so.0
  patience=$3
  shift 3
  # shellcheck disable=SC2046 # no argument has a space in it
  watch "$patience" env LD_LIBRARY_PATH="$path" \
    $(printf '%s\n' "$@" | sed "s:OPENBLAS:$blas_path:")
}

unset LD_PRELOAD OMP_NUM_THREADS OPENBLAS_NUM_THREADS GOMP_SPINCOUNT OMP_WAIT_POLICY
build_targets omp_forker blas_forker
forker=$build/tests/omp_forker
blas=$build/tests/blas_forker
cases=$upstream/omp_cases

fetch_tar gcc-12
build_libgomp without
old=$library
build_libgomp with
new=$library
logged g++ -O1 -fopenmp -pthread "$root/scripts/upstream/omp_cases.cpp" -o "$cases"

printf '\n%-62s %-8s %s\n' '' without with
prove 'libgomp: idle' "$old" "$new" "$forker" idle 100
prove 'libgomp: the internal control variables stay' "$old" "$new" "$forker" variables 100
prove 'libgomp: a thread with a pool of its own forks' "$old" "$new" "$forker" thread 100
prove 'libgomp: regions and critical sections in flight' "$old" "$new" "$forker" flight 200
prove 'libgomp: fork in a task' "$old" "$new" "$cases" task 50
prove 'libgomp: fork in a teams construct' "$old" "$new" "$cases" teams 50
prove 'libgomp: fork in a region of one thread' "$old" "$new" "$cases" one-thread 50
prove 'libgomp: fork in a critical section' "$old" "$new" "$cases" critical 50
prove 'libgomp: the forking thread ends in the child' "$old" "$new" "$cases" thread-ends 50

case $* in
  *openblas*)
    fetch_tar openblas
    for openmp_build in 0 1; do
      build_openblas without $openmp_build
      build_openblas with $openmp_build
    done
    for openmp_build in 0 1; do
      printf '\n%-62s %-8s %s\n' '' without with
      # In the OpenMP build both runs use the patched libgomp. So a hang is OpenBLAS's own.
      kind=$([ $openmp_build = 0 ] && echo 'OpenBLAS, own threads' || echo 'OpenBLAS, OpenMP')
      if [ $openmp_build = 0 ]; then
        prove "$kind: idle, the parent keeps its pool" "$new" "$new" "$blas" --blas=OPENBLAS \
          --child-threads-at-end=2 --threads-after=2 --forks=100
      else
        prove "$kind: idle, libgomp without and with" "$old" "$new" "$blas" --blas=OPENBLAS \
          --child-threads-at-end=2 --threads-after=2 --forks=100
      fi
      prove "$kind: one call in flight" "$new" "$new" "$blas" --blas=OPENBLAS --flight=1 --forks=100
      prove "$kind: three calls in flight" "$new" "$new" "$blas" --blas=OPENBLAS --flight=3 --forks=100
      prove "$kind: three large calls in flight" "$new" "$new" "$blas" --blas=OPENBLAS --flight=3 \
        --n=600 --forks=30
      prove "$kind: LU in flight" "$new" "$new" "$blas" --blas=OPENBLAS --flight=2 --op=lu --n=400 \
        --forks=50
      prove "$kind: two threads fork at once" "$new" "$new" "$blas" --blas=OPENBLAS --flight=1 \
        --from=both --forks=100
      prove "$kind: 25 generations, 8 threads" "$new" "$new" "$blas" --blas=OPENBLAS --nest=25 \
        --threads=8 --flight=3
    done
    ;;
esac

say ''
say 'short regions with the patch, in the parent, its child and its grandchild:'
LD_LIBRARY_PATH=$new timeout 300 "$cases" regions 2
say 'memory in a chain of forks with the patch:'
LD_LIBRARY_PATH=$new timeout 300 "$cases" chain 300

say ''
if [ "$unexpected" -eq 0 ]; then
  say "each program hangs or fails without the patch, and passes with it"
else
  fail "$unexpected programs pass without the patch, or do not pass with it"
fi
