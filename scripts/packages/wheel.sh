# SPDX-License-Identifier: Apache-2.0
# The wheel and the source distribution for PyPI. Sourced by packages.sh.
#
# The wheel is built on bullseye, so it runs with bullseye's glibc and every later one. It is checked on all
# releases. wheel_inside.sh has the steps inside a tree. pip there uses this machine's configuration of pip
# and the caller's variables.

wheel_work=$packages/wheel
# Python 3.9, 3.11, 3.13, 3.14. --quick takes the two that other checks use.
wheel_suites='bullseye bookworm trixie sid'
[ "$quick" = no ] || wheel_suites='bullseye trixie'

# inside SUITE LAYER STEP [ARG...]: runs a step of wheel_inside.sh in a tree, with the sources, the work
# folder of this kind, and the downloads of pip and uv.
inside() {
  inside_suite=$1
  inside_layer=wheel-$1-$2
  shift 2
  in_tree "$inside_suite" "$inside_layer" --bind "$packages/forksafe-$version" /source ro \
    --bind "$wheel_work" /steps rw --bind "$packages/cache" /downloads rw \
    sh /source/scripts/packages/wheel_inside.sh "$@"
}

# Copies pip's configuration files, the files that they name, and the certificates that the environment names.
copy_pip_configuration() {
  configuration=$("$python" -m pip config debug | sed -n 's/^ *\(.*\), exists: True$/\1/p')
  # shellcheck disable=SC2086 # paths without spaces
  for file in $configuration $(cat $configuration /dev/null | grep -o '/[^ ]*') ${PIP_CERT:-} ${SSL_CERT_FILE:-} \
    ${REQUESTS_CA_BUNDLE:-}; do
    [ ! -f "$file" ] || cp --parents -L "$file" "$wheel_work/configuration"
  done
}

# The figure that a step printed last, for the name of a row.
figure() { tail -n 1 "$wheel_work/figure" 2>/dev/null || say '?'; }

package_wheel() {
  for suite in $wheel_suites; do
    make_tree "$suite" || {
      check "a tree of $suite" false
      return
    }
  done
  rm -rf "$wheel_work"
  mkdir -p "$wheel_work/configuration" "$packages/cache"
  copy_pip_configuration
  drop_wheel_layers
  check_wheel
}

drop_wheel_layers() {
  for layer in "$trees/layers/wheel-"*; do
    drop_layer "${layer##*/}"
  done
}

# If a check fails whose result the later checks need, the function ends.
check_wheel() {
  check "build on bullseye: what it needs" inside bullseye build prepare || return 0
  check "build on bullseye: sdist" inside bullseye build sdist one || return 0
  check "build on bullseye: wheel from the sdist" inside bullseye build wheel one || return 0
  check "lint: what it needs" inside trixie lint prepare-lint || return 0
  check "tag, SBOM: auditwheel, manylinux_2_28 or lower" inside trixie lint finish one || return 0
  cp "$wheel_work"/finished-one/* "$artefacts/wheel/"
  check "auditwheel: no library is left to graft; NEEDED is libc's" inside trixie lint audit
  check "twine check" inside trixie lint twine
  check "check-wheel-contents" inside trixie lint contents
  check "licenses and SBOM inside" inside trixie lint licenses
  check "mypy --strict" inside trixie lint types
  check "another architecture is refused in one line" inside trixie lint other-architecture
  for system in darwin windows musl; do
    check "sdist on $system is refused in one line" inside bullseye build refuses "$system"
  done

  for suite in $wheel_suites; do
    check "$suite: virtual environment from the wheel alone" inside "$suite" test prepare-test "$suite" || continue
    on="Python $(cat "$wheel_work/python-$suite")"
    check "$on: package and reexec()" inside "$suite" test run-test package_test
    check "$on: plugin for pytest, also with xdist" inside "$suite" test run-test pytest_plugin_test
    check "$on: Pool of LightGBM" inside "$suite" test run-test lightgbm_test
  done
  for way in user system target prefix uv-pip uv-tool space; do
    check "install: $way" inside trixie test install "$way"
  done
  check "install: pip 20.3.4, the oldest that knows the tag" inside bullseye test old-pip
  check "an older pip (19.3.1) refuses it in one line" inside bullseye test older-pip
  [ "$quick" = no ] || return 0

  check "build again: sdist" inside bullseye build sdist two
  check "build again: wheel" inside bullseye build wheel two &&
    inside trixie lint finish two >>"$packages/wheel.log" 2>&1
  check "the same bytes twice" diff -r "$wheel_work/finished-one" "$wheel_work/finished-two"

  check "aarch64: cross-built on bullseye: what it needs" inside bullseye build prepare-aarch64 || return 0
  check "aarch64: wheel from the sdist" inside bullseye build wheel-aarch64 || return 0
  check "aarch64: tag, SBOM: auditwheel, manylinux_2_28 or lower" inside trixie lint finish aarch64 || return 0
  cp "$wheel_work"/finished-aarch64/*.whl "$artefacts/wheel/"
  check "aarch64: NEEDED is libc's" inside trixie lint audit aarch64
  check "aarch64: command, package and a fork, on sid's QEMU" inside sid test try-aarch64
}

# What is timed, when nothing else runs any more.
measure_wheel() {
  rm -f "$wheel_work/figure"
  inside trixie test measure-first >>"$packages/wheel.log" 2>&1
  check "pip install and the first forksafe python app.py: $(figure) s, at most 5" within "$(figure)" 5
  rm -f "$wheel_work/figure"
  inside trixie test measure-start >>"$packages/wheel.log" 2>&1
  check "forksafe true over env LD_PRELOAD=... true: $(figure) ms, at most 3" within "$(figure)" 3
  drop_wheel_layers
  rm -rf "$wheel_work/configuration"
}

# within FIGURE BOUND
within() { "$python" -c 'import sys; sys.exit(not 0 <= float(sys.argv[1]) <= float(sys.argv[2]))' "$@"; }
