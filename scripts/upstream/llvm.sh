# SPDX-License-Identifier: Apache-2.0
# LLVM's tests of its OpenMP runtime. upstream.sh sources this file. Comments for lit in the tests (RUN
# lines) say how they are compiled and run.
#
# Tests whose output is checked by LLVM's own tools, and tests for other compilers, are left out.
llvm=14

llvm_fetch() {
  (need_packages "clang-$llvm" "libomp-$llvm-dev") &&
    fetch_sources "llvm-toolchain-$llvm" "$upstream/sources/llvm-$llvm" '*/openmp/runtime/*'
}

# llvm_run_lines FILE: prints the commands that run the test, one a line.
llvm_run_lines() {
  sed -n 's/^.*RUN: *//p' "$1" | sed -e :a -e '/\\$/N; s/\\\n//; ta' | sed 's/&&/\n/g' |
    sed 's/-compile-and-run/-run/; s/^ *//; s/ *$//' | grep -vE '^%libomp-(cxx-)?compile( -D_GNU_SOURCE)?$'
}

llvm_prepare() {
  tests=$upstream/sources/llvm-$llvm/openmp/runtime/test
  find "$tests" -name '*.c' -o -name '*.cpp' | sort | xargs grep -lE 'RUN: *%libomp' |
    xargs grep -LE '(REQUIRES|UNSUPPORTED):.*(hwloc|ompt|icc|clang)' | while read -r file; do
    lines=$(llvm_run_lines "$file")
    [ -n "$lines" ] || continue
    say "$lines" | grep -qvE '^(env( +[A-Z_]+=[^ ]+)* +)?%libomp(-cxx)?-run[^|;>]*$' || say "$file"
  done >"$folder/tests"
  {
    cat <<END
rule c
  command = clang-$llvm -fopenmp -O2 -w -D_GNU_SOURCE -I$tests -I$tests/ompt \$in -o \$out -lm $
    >\$out.log 2>&1
rule cxx
  command = clang++-$llvm -fopenmp -O2 -w -D_GNU_SOURCE -I$tests -I$tests/ompt \$in -o \$out -lm $
    >\$out.log 2>&1
END
    while read -r file; do
      case $file in
        *.cpp) rule=cxx ;;
        *) rule=c ;;
      esac
      say "build $folder/objects/$(basename "$file").run: $rule $file"
    done <"$folder/tests"
  } >"$folder/build.ninja"
}

# Each RUN line counts as a test.
llvm_commands() {
  while read -r file; do
    program=$folder/objects/$(basename "$file").run
    llvm_run_lines "$file" | awk -v name="${file#"$tests"/}" -v program="$program" '{
      gsub("%libomp(-cxx)?-run", program)
      print name (NR > 1 ? ":" NR : ""), program, "env KMP_BLOCKTIME=0", $0
    }'
  done <"$folder/tests"
}
