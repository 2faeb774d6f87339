# SPDX-License-Identifier: Apache-2.0
# glibc's tests that fork. upstream.sh sources this file.
#
# glibc itself is not built. Its tests and its support library (support/) are compiled against the
# system's libc. The compiler looks for a header in the system first, and in glibc's sources second. A
# test that needs glibc's internals does not compile and is skipped.

# Functions that fork: glibc's, and those of the support library that a test may call.
glibc_calls='x?fork|_Fork|vfork|forkpty|daemon|pthread_atfork|__register_atfork|popen|system|wordexp'
glibc_calls="$glibc_calls|x?posix_spawnp?|support_(capture_subpro[a-z]*|isolate_in_subprocess|subpro[a-z]*)"
glibc_calls="\\<($glibc_calls) *\\("

glibc_fetch() {
  # Most of these tests sleep.
  jobs=$((2 * $(nproc)))
  seconds=90
  fetch_sources glibc "$upstream/sources/glibc"
}

# glibc_files: lists the tests that fork, and those that include the source of a test that forks.
glibc_files() {
  # Leave out tests for other systems and processors, and static programs, which preload nothing.
  (cd "$upstream/sources/glibc" && find . -name '*.c' | sed 's,^\./,,' |
    grep -vE '^(hurd|mach|htl|benchtests|manual|support)/|/(mach|htl|hurd)/' |
    grep -vE '^sysdeps/(unix/sysv/linux/)?(aarch64|alpha|arc|arm|csky|hppa|i386|ia64|loongarch|m68k|microblaze|mips|nios2|or1k|powerpc|riscv|s390|sh|sparc|ieee754|x86_64|x86)/' \
      >"$folder/files" &&
    xargs grep -lE "$glibc_calls" <"$folder/files" >"$folder/calling"
    sed 's,.*/,,; s,[.],[.],g; s,.*,#[ ]*include.*[</"]&[>"],' "$folder/calling" >"$folder/patterns"
    xargs grep -lE -f "$folder/patterns" <"$folder/files" >>"$folder/calling"
    grep -E '(^|/)(tst|test|bug)[^/]*\.c$' "$folder/calling" | grep -v -e '-static\.c$' | sort -u |
      xargs grep -lE 'test-driver\.c|test-skeleton\.c|\<main *\(|include.*(tst|test|bug)[^/]*\.c[">]')
}

# glibc_variable TEST ARGS|ENV PROGRAM: prints what glibc's makefiles set for a test: its arguments or its
# environment. Prints nothing if the value uses a part of glibc's build folder that does not exist here.
glibc_variable() {
  sed -n "s,^$1-$2 *[:+]*= *,,p" "$folder/variables" | head -n 1 |
    sed "s,\$(host-test-program-cmd),$3,g; s,\$(objpfx),$folder/objects/,g; s,\\\\$,," | grep -v '[$]'
}

glibc_prepare() {
  source=$upstream/sources/glibc
  mkdir -p "$folder/include"
  : >"$folder/include/config.h"
  cat >"$folder/before.new" <<END
#include <limits.h>
#define libc_hidden_proto(...)
#define libc_hidden_def(...)
#define attribute_hidden
#define TIMEOUTFACTOR 1
#define OBJPFX "$folder/objects/"
#define SRCDIR_PATH "$source"
#define OBJDIR_PATH "$folder/objects"
#define OBJDIR_ELF_LDSO_PATH "$(ldd /bin/sh | sed -n 's/^[[:space:]]*\(\/[^ ]*\).*/\1/p')"
#define INSTDIR_PATH ""
#define LIBDIR_PATH "/usr/lib"
#define SLIBDIR_PATH "/lib"
#define BINDIR_PATH "/usr/bin"
#define SBINDIR_PATH "/usr/sbin"
#define ROOTSBINDIR_PATH "/sbin"
#define COMPLOCALEDIR_PATH "/usr/lib/locale"
END
  # If the header has not changed, keep the old file, so ninja does not compile everything again.
  before_tests=$folder/include/before.h
  cmp -s "$folder/before.new" "$before_tests" || mv "$folder/before.new" "$before_tests"
  headers="-idirafter $folder/include"
  for place in . include support sysdeps/unix/sysv/linux/x86 sysdeps/unix/sysv/linux sysdeps/nptl \
    sysdeps/pthread "sysdeps/$(uname -m)" sysdeps/x86 sysdeps/generic; do
    headers="$headers -idirafter $source/$place"
  done
  glibc_files >"$folder/tests"
  find "$source" -name Makefile -exec cat {} + >"$folder/variables"

  {
    cat <<END
flags = -std=gnu11 -O2 -g -w -fexceptions -D_GNU_SOURCE -D_ISOMAC -DMODULE_NAME=testsuite $
  -include $before_tests $headers
rule support
  command = gcc \$flags -c \$in -o \$out >\$out.log 2>&1 || gcc -x c -c /dev/null -o \$out
rule archive
  command = rm -f \$out && ar cr \$out \$in
rule test
  command = gcc \$flags \$in -o \$out -rdynamic -Wl,--as-needed $folder/libsupport.a $
    -lm -lcrypt -lresolv >\$out.log 2>&1
rule module
  command = gcc \$flags -shared -fPIC \$in -o \$out >\$out.log 2>&1
END
    # If a part does not compile, it becomes an empty object, and only the tests that need it are lost.
    objects=
    for file in "$source"/support/*.c; do
      part=$(basename "$file" .c)
      case $part in
        tst-* | test-* | links-* | *-container | *_main) [ "$part" = support_test_main ] || continue ;;
      esac
      say "build $folder/support/$part.o: support $file | $before_tests"
      objects="$objects $folder/support/$part.o"
    done
    say "build $folder/libsupport.a: archive $objects"
    while read -r file; do
      say "build $folder/objects/${file%.c}: test $source/$file | $folder/libsupport.a $before_tests"
    done <"$folder/tests"
    # The modules that a test loads may have their sources in another folder.
    (cd "$source" && xargs grep -hoE '"[A-Za-z0-9_-]+\.so"' <"$folder/tests") | tr -d '"' | sort -u |
      while read -r module; do
        file=$(find "$source" -name "${module%.so}.c" | head -n 1)
        [ -z "$file" ] || say "build $folder/objects/$module: module $file | $before_tests"
      done
  } >"$folder/build.ninja"
}

# glibc_commands: prints a line "NAME PROGRAM COMMAND" for each test.
glibc_commands() {
  while read -r file; do
    program=$folder/objects/${file%.c}
    test=$(basename "$program")
    say "${file%.c} $program env TIMEOUTFACTOR=3 LD_LIBRARY_PATH=$folder/objects" \
      "$(glibc_variable "$test" ENV "$program") $program $(glibc_variable "$test" ARGS "$program")"
  done <"$folder/tests"
}

# The suite "loaded": the same tests with thread pools. OpenBLAS starts its threads when it is loaded.
loaded_fetch() {
  glibc_fetch && (need_packages libopenblas0-pthread libgomp1) || return 1
  before=$(ldconfig -p | sed -n 's,.*libgomp\.so\.1 .*=> ,,p' | head -n 1)
  before=$before:$(dpkg -L libopenblas0-pthread | grep '/libopenblas\.so\.0$')
}

loaded_prepare() {
  folder=$upstream/glibc
  glibc_prepare
}

loaded_commands() { glibc_commands; }
