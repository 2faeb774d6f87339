# SPDX-License-Identifier: Apache-2.0
# distros.sh runs this inside a tree: inside.sh build-library|versions|test. In POSIX sh.
set -eu
here=/forksafe

# configure FOLDER OPTION...: runs meson setup, if the folder is new.
configure() {
  folder=$1
  shift
  [ -f "$folder/meson-private/coredata.dat" ] || meson setup "$folder" "$here/source" "$@"
}

version_of() { dpkg-query -W -f '${Version}\n' "$1" | sed 's/^[0-9]*://; s/[-+].*//'; }

case $1 in
  build-library)
    configure "$here/library" --buildtype=release -Dtests=false
    meson compile -C "$here/library" shim/forksafe
    ;;
  versions)
    say() { printf '%s=%s\n' "$@"; }
    say glibc "$(getconf GNU_LIBC_VERSION | cut -d ' ' -f 2)"
    say GCC "$(gcc -dumpfullversion)"
    say libgomp "$(version_of libgomp1)"
    say OpenBLAS "$(version_of libopenblas0-pthread)"
    say BLIS "$(version_of "$(dpkg-query -W -f '${Status} ${Package}\n' 'libblis*-openmp' |
      sed -n 's/^install ok installed //p')")"
    say LLVM-OpenMP "$(version_of libomp5)"
    say Python "$(python3 -c 'import platform; print(platform.python_version())')"
    say numpy "$(version_of python3-numpy)"
    ;;
  test)
    configure "$here/build" -Dwerror=true
    meson compile -C "$here/build"
    # Replace this build's library by the one from the oldest system: that is the library under test.
    under_test=$here/build/shim/libforksafe.so
    cp "$here/libforksafe.so" "$under_test"
    status=0
    meson test -C "$here/build" --no-rebuild --print-errorlogs --timeout-multiplier 3 \
      --suite unit --suite cli --suite scenario --suite harm || status=$?
    cmp "$here/libforksafe.so" "$under_test"
    : >"$here/ended"
    exit $status
    ;;
esac
