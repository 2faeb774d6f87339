# SPDX-License-Identifier: Apache-2.0
# GCC's tests of GNU OpenMP: the tests of libgomp in C and C++ that are programs. upstream.sh sources this
# file. Comments for DejaGnu in the tests say how they are compiled and run.
#
# Tests that are only compiled, that must fail, or that need an accelerator are left out. Regions for an
# accelerator run on the host, as on every machine without one. Only every third C++ test is taken,
# because most C++ tests repeat a test in C.

libgomp_fetch() {
  need_packages g++
  gcc_sources=$upstream/sources/gcc-$(gcc -dumpversion)
  [ -d "$gcc_sources" ] && return 0
  # The tarball in the source package contains the tarball of GCC.
  rm -rf "$gcc_sources.outer" "$gcc_sources.part"
  fetch_sources "gcc-$(gcc -dumpversion)" "$gcc_sources.outer" '*/gcc-*.tar.xz' || return 1
  mkdir -p "$gcc_sources.part" &&
    tar -C "$gcc_sources.part" --strip-components=1 --wildcards -xf "$gcc_sources.outer"/gcc-*.tar.xz \
      '*/libgomp/*' &&
    mv "$gcc_sources.part" "$gcc_sources"
  fetched=$?
  rm -rf "$gcc_sources.outer"
  return $fetched
}

# libgomp_files: lists the tests that are programs, with paths relative to the test suite's folder.
libgomp_files() {
  (cd "$gcc_sources/libgomp/testsuite" &&
    {
      find libgomp.c libgomp.c-c++-common -type f -name '*.c' | sort
      find libgomp.c++ -type f -name '*.C' | sort | awk 'NR % 3 == 0'
    } | xargs grep -LE 'dg-do (compile|link|preprocess)|dg-shouldfail|dg-error|effective-target offload' |
    xargs grep -lE '\<main *\(|#include .*\.c[">]')
}

# libgomp_options FILE: prints the compiler options of a test that hold for all targets, and its further
# source files.
libgomp_options() {
  sed -n 's/.*{ *dg-\(additional-\)*options "\([^"]*\)" *\({ *target c *} *\)*}.*/\2/p' "$1" |
    sed 's/-fdump-[^ ]*//g' | paste -sd ' '
  sed -n 's/.*{ *dg-additional-sources "*\([^" }]*\)"* *}.*/\1/p' "$1" |
    sed "s,^,$(dirname "$1")/," | paste -sd ' '
}

# libgomp_variables FILE: prints the environment variables that a test runs with.
libgomp_variables() {
  sed -n 's/.*dg-set-target-env-var *"*\([A-Z_]*\)"* *"\([^"]*\)".*/"\1=\2"/p' "$1" | paste -sd ' '
}

libgomp_prepare() {
  libgomp_files >"$folder/tests"
  # A test needs this result of configure, and configure does not run here.
  mkdir -p "$folder/include"
  say '#define HAVE_PTHREAD_AFFINITY_NP 1' >"$folder/include/config.h"
  {
    cat <<END
flags = -fopenmp -O2 -g -w -idirafter $folder/include -idirafter $gcc_sources/libgomp
rule c
  command = gcc \$flags \$options \$in -o \$out -lm -ldl >\$out.log 2>&1
rule cxx
  command = g++ \$flags \$options \$in -o \$out -lm -ldl >\$out.log 2>&1
END
    while read -r file; do
      case $file in
        *.C) rule=cxx ;;
        *) rule=c ;;
      esac
      say "build $folder/objects/$file.run: $rule $gcc_sources/libgomp/testsuite/$file"
      say "  options =" $(libgomp_options "$gcc_sources/libgomp/testsuite/$file")
    done <"$folder/tests"
  } >"$folder/build.ninja"
}

# With OMP_WAIT_POLICY=passive, threads sleep while they wait. If they spin, a test takes minutes on a busy
# machine.
libgomp_commands() {
  while read -r file; do
    program=$folder/objects/$file.run
    say "$file $program env OMP_WAIT_POLICY=passive" \
      "$(libgomp_variables "$gcc_sources/libgomp/testsuite/$file") $program"
  done <"$folder/tests"
}

# The suite "child": the same tests. fork_first.c runs each in a forked child.
child_fetch() { libgomp_fetch; }

child_prepare() {
  folder=$upstream/libgomp
  libgomp_prepare
  inside=$folder/fork_first.so
  cat >>"$folder/build.ninja" <<END
rule fork_first
  command = gcc -O2 -shared -fPIC \$in -o \$out
build $inside: fork_first $root/scripts/upstream/fork_first.c
END
}

child_commands() { libgomp_commands; }
