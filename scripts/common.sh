# SPDX-License-Identifier: Apache-2.0
# What demo.sh and test.sh share, in POSIX sh: the root of the repository, packages, the build, a
# virtual environment. Sourced, never run:  . "$(dirname "$0")/common.sh"
#
# FORKSAFE_BUILD     the build folder, from the root of the repository (default: build)
# FORKSAFE_PACKAGES  "installed": do not look for Debian's packages, all that is needed is there

# Debian's Python and meson, not those of a pyenv or conda that come first on PATH: Debian's numpy
# and its OpenBLAS, which the demo and the tests run, belong to Debian's Python.
PATH=/usr/bin:$PATH
export PATH
python=/usr/bin/python3

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd) || exit 2
case ${FORKSAFE_BUILD:-build} in
  /*) build=${FORKSAFE_BUILD} ;;
  *) build=$root/${FORKSAFE_BUILD:-build} ;;
esac

# What the build needs. Its lists are split into words where they are used.
build_packages='g++ meson ninja-build pkg-config catch2 libunwind-dev
  libcli11-dev libfmt-dev nlohmann-json3-dev'

say() { printf '%s\n' "$*"; }

fail() {
  printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2
  exit 2
}

is_installed() {
  dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

# logged LOG WORDS COMMAND...: runs the command with its output in LOG. While it runs, shows the last
# line of LOG: each second in place on a terminal, every half minute elsewhere.
logged() {
  logged_to=$1
  say "$2"
  shift 2
  : >"$logged_to"
  show_progress "$logged_to" &
  progress=$!
  ended=0
  "$@" >"$logged_to" 2>&1 || ended=$?
  kill "$progress" 2>/dev/null || true
  wait "$progress" 2>/dev/null || true
  [ ! -t 1 ] || printf '\r\033[K'
  return $ended
}

# show_progress LOG: ends by itself after the script.
show_progress() {
  seconds=0
  while sleep 1 && kill -0 $$ 2>/dev/null; do
    seconds=$((seconds + 1))
    last=$(tail -c 1000 "$1" | tr '\r' '\n' | sed '/^ *$/d' | tail -n 1 | cut -c 1-65)
    if [ -t 1 ]; then
      printf '\r\033[K  %d s: %s' "$seconds" "$last"
    elif [ $((seconds % 30)) -eq 0 ]; then
      say "  $seconds s: $last"
    fi
  done
}

# need_packages PKG...: installs those that are missing, or says how and ends the script with 2.
need_packages() {
  [ "${FORKSAFE_PACKAGES:-}" = installed ] && return 0
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    fail "apt-get not found: install the equivalents of $*, then run this again with" \
      "FORKSAFE_PACKAGES=installed"
  fi

  missing=
  for package in "$@"; do
    is_installed "$package" || missing="$missing $package"
  done
  [ -z "$missing" ] && return 0
  missing=${missing# }

  if [ "$(id -u)" -eq 0 ]; then
    as_root=
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root='sudo -n'
  elif command -v sudo >/dev/null && [ -t 0 ]; then
    as_root=sudo # it asks for the password
  else
    fail "missing packages: $missing. Install them with: sudo apt-get install $missing"
  fi

  # The password is asked for before the progress is shown, which writes over the same line.
  [ "$as_root" != sudo ] || sudo -v || fail "sudo did not work: sudo apt-get install $missing"
  # Word splitting is meant: $as_root is zero, one or two words, $missing a list of packages.
  # An update that fails may still leave lists good enough for the install, which decides.
  # shellcheck disable=SC2086
  logged "$(package_log)" "updating the lists of Debian's packages" $as_root apt-get -q update || true
  # shellcheck disable=SC2086
  if ! logged "$(package_log)" "installing $missing" \
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends \
    $missing; then
    tail -n 15 "$(package_log)" >&2
    fail "apt-get could not install $missing (see $(package_log)). By hand:" \
      "sudo apt-get install $missing"
  fi
}

package_log() {
  mkdir -p "$build"
  printf '%s\n' "$build/packages.log"
}

# build_targets [TARGET...]: configures once, compiles what changed of these targets (of all, when none
# is named). The compiler speaks only when it fails.
build_targets() {
  meson=meson
  [ -x /usr/bin/meson ] && meson=/usr/bin/meson
  command -v "$meson" >/dev/null || fail "meson not found: install it (Debian: meson)"

  mkdir -p "$build"
  build_log=$build/build.log
  # coredata.dat is what meson itself takes for the sign of a configured folder.
  if [ ! -f "$build/meson-private/coredata.dat" ]; then
    "$meson" setup "$build" "$root" >"$build_log" 2>&1 || build_failed
  fi
  logged "$build_log" "building in $build" "$meson" compile -C "$build" "$@" || build_failed
}

build_failed() {
  tail -n 30 "$build_log" >&2
  fail "the build failed (all of it: $build_log)"
}

# make_venv NAME [--system-site-packages] PKG...: the virtual environment BUILD/NAME with these packages
# from PyPI, as wheels (a numpy compiled here would not be the wheel that people have), and with
# Debian's. It is made again when the list of packages or the Python has changed. Returns 1 where the
# packages can't be had; pip.log tells why.
make_venv() {
  venv=$build/$1
  shift
  wanted="$("$python" --version) $*"
  stamp=$venv/forksafe-packages
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && return 0

  mkdir -p "$build"
  sees=
  case ${1:-} in
    --system-site-packages)
      sees=$1
      shift
      ;;
  esac
  logged "$build/pip.log" "installing $* from PyPI into $venv" fill_venv "$@" &&
    printf '%s\n' "$wanted" >"$stamp"
}

# --clear: an environment that was left half made, or belongs to an older Python, starts over. Two
# retries: pip's own five take minutes to find out that there is no network.
fill_venv() {
  # shellcheck disable=SC2086 # no word or one
  "$python" -m venv --clear $sees "$venv" &&
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --only-binary :all: \
      --timeout 10 --retries 2 "$@"
}

# make_obspy_venv: ObsPy over Debian's numpy and scipy, with the versions of its own needs that work
# with these.
make_obspy_venv() {
  make_venv obspy-venv --system-site-packages obspy==1.4.1 'matplotlib<3.9' 'contourpy<1.3' \
    'sqlalchemy<2'
}

# fetch_wheel NAME REQUIREMENT [PIP-OPTION...]: unpacks a wheel into BUILD/wheels/NAME. Only the files
# in it are used, by their path: nothing is installed, and its own dependencies are not fetched.
fetch_wheel() {
  folder=$build/wheels/$1
  wanted=$2
  [ -f "$folder.of" ] && [ "$(cat "$folder.of")" = "$wanted" ] && return 0
  shift
  rm -rf "$folder" "$folder.whl"
  mkdir -p "$folder" "$folder.whl"
  say "fetching $wanted from PyPI"
  "$python" -m pip download --quiet --disable-pip-version-check --no-input --no-deps \
    --only-binary :all: --timeout 10 --retries 2 --dest "$folder.whl" "$@" \
    >"$build/pip.log" 2>&1 &&
    "$python" -m zipfile -e "$folder.whl"/*.whl "$folder" &&
    printf '%s\n' "$wanted" >"$folder.of"
  fetched=$?
  rm -rf "$folder.whl"
  return $fetched
}

# fetch_test_wheels [NAME...]: the wheels whose libraries are tested, or these of them.
fetch_test_wheels() {
  missing=
  while read -r name requirement; do
    case " $* " in "  " | *" $name "*) ;; *) continue ;; esac
    fetch_wheel "$name" "$requirement" || missing="$missing $requirement"
  done <<END
numpy-1.26 numpy==1.26.4
numpy-2.2 numpy==2.2.6
numpy-2.4 numpy==2.4.0
scipy-1.17 scipy==1.17.1
openblas64 scipy-openblas64==0.3.34.481.3
openblas32 scipy-openblas32==0.3.34.481.3
scikit-learn scikit-learn==1.7.2
intel-openmp intel-openmp==2026.2.0
END
  [ -z "$missing" ] || say "not to be had from PyPI, their tests are skipped:$missing"
}

# fetch_sources PACKAGE FOLDER [PATTERN...]: unpacks the upstream part of Debian's source package into
# FOLDER, or only what matches: some projects' tests are in no other package. Most systems have no
# lists of sources; those that are fetched here are not theirs.
fetch_sources() {
  source_package=$1
  unpacked=$2
  shift 2
  [ -d "$unpacked" ] && return 0
  rm -rf "$unpacked.part"
  mkdir -p "$unpacked.part/lists/partial"
  # shellcheck disable=SC2016 # apt's own variables
  apt-get indextargets --format 'deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' \
    'Label: Debian' 2>/dev/null | head -n 1 >"$unpacked.part/sources.list"
  options="-o Dir::Etc::SourceList=$unpacked.part/sources.list -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists=$unpacked.part/lists -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
    -o APT::Sandbox::User=root"
  # shellcheck disable=SC2086
  (cd "$unpacked.part" && mkdir unpacked &&
    apt-get $options update && apt-get $options source --download-only --tar-only "$source_package" &&
    tar -C unpacked --strip-components=1 --wildcards -xf ./*.orig.tar.* "$@" &&
    mv unpacked "$unpacked") >"$(package_log)" 2>&1
  fetched=$?
  rm -rf "$unpacked.part"
  return $fetched
}
