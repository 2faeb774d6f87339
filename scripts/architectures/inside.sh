# SPDX-License-Identifier: Apache-2.0
# architectures.sh runs this inside a tree: inside.sh ARCHITECTURE packages|build|versions|test. In POSIX
# sh.
set -eu
here=/forksafe
architecture=$1
step=$2
shift 2

# available NAME...: prints those of the packages that the release has for this architecture.
available() {
  for name in "$@"; do
    candidate=$(apt-cache policy "$name:$architecture" | sed -n 's/^  Candidate: //p')
    case $candidate in
      '' | '(none)') echo "$name is not available for $architecture" >&2 ;;
      *) printf '%s:%s\n' "$name" "$architecture" ;;
    esac
  done
}

# A Python of the architecture. Its packages can't be installed beside those of this machine's Python, so
# they are only unpacked.
python=$here/python
unpack_python() {
  version=$(python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
  rm -rf "$python"
  mkdir -p /tmp/python
  (cd /tmp/python && apt-get -q download "$version-minimal:$architecture" "lib$version-minimal:$architecture" \
    "lib$version-stdlib:$architecture" "python3-numpy:$architecture" &&
    for package in *.deb; do dpkg-deb -x "$package" "$python"; done)
  rm -r /tmp/python
  # The libraries that these packages, and the wheels under test, depend on.
  # shellcheck disable=SC2046 # a list
  apt-get -q install -y --no-install-recommends $(available libexpat1 zlib1g libffi8 libbz2-1.0 liblzma5 \
    libssl3 libblas3 liblapack3)
}

version_of() {
  dpkg-query -W -f '${Version}\n' "$1:$architecture" 2>/dev/null | sed 's/^[0-9]*://; s/[-+].*//'
}

case $step in
  packages)
    [ ! -f $here/packages ] || exit 0
    dpkg --add-architecture "$architecture"
    # Trixie's Catch2 is a library, for amd64 alone. Bookworm's consists of headers.
    if grep -q ' trixie ' /etc/apt/sources.list; then
      sed 's/ trixie / bookworm /' /etc/apt/sources.list >/etc/apt/sources.list.d/bookworm.list
      echo 'APT::Default-Release "trixie";' >/etc/apt/apt.conf.d/forksafe-release
    fi
    apt-get -q update
    # shellcheck disable=SC2046 # a list
    apt-get -q install -y --no-install-recommends "crossbuild-essential-$architecture" catch2/bookworm \
      meson ninja-build pkg-config python3 binutils procps libcli11-dev nlohmann-json3-dev \
      "libunwind-dev:$architecture" "libfmt-dev:$architecture" \
      $(available libopenblas0-pthread libopenblas0-openmp libblis4-pthread libblis4-openmp libomp5 \
        libeatmydata1 libjemalloc2)
    [ "$architecture" != arm64 ] || unpack_python
    : >$here/packages
    ;;
  build)
    [ -f $here/build/build.ninja ] || meson setup $here/build $here/source \
      --cross-file "$here/source/scripts/architectures/$architecture.txt"
    ninja -C $here/build unit scenario
    ;;
  versions)
    say() { printf '%s=%s\n' "$@"; }
    say glibc "$(version_of libc6)"
    say libgomp "$(version_of libgomp1)"
    say OpenBLAS "$(version_of libopenblas0-pthread)"
    say BLIS "$(version_of libblis4-openmp)"
    say LLVM-OpenMP "$(version_of libomp5)"
    say Python "$([ ! -d "$python" ] || python3 -c 'import platform; print(platform.python_version())')"
    ;;
  test)
    # i386's programs run without QEMU, but a 32-bit forksafe command can't read their stacks either.
    export FORKSAFE_TEST_EMULATED="${1:-no}"
    [ -z "$1" ] || export FORKSAFE_TEST_MOST_FORKS=20
    shift
    FORKSAFE_TEST_PYTHON=$(echo "$python"/usr/bin/python3.*)
    export FORKSAFE_TEST_PYTHON
    # A processor without SVE and SME. With QEMU's default processor, which has both (QEMU 11.1), OpenBLAS
    # 0.3.34 gives other results from call to call, even in a process that never forks.
    if [ "$architecture" = arm64 ]; then
      QEMU_CPU=neoverse-n1
      export QEMU_CPU
    fi
    status=0
    meson test -C $here/build --no-rebuild --print-errorlogs --timeout-multiplier 5 "$@" || status=$?
    : >$here/ended
    exit $status
    ;;
esac
