# SPDX-License-Identifier: Apache-2.0
# What the scripts share, in POSIX sh: the root of the repository, packages, the build, virtual
# environments. Sourced, never run:  . "$(dirname "$0")/common.sh"
#
# FORKSAFE_BUILD     the build folder, relative to the root of the repository (default: build)
# FORKSAFE_PACKAGES  "installed": everything is installed already, so do not look for Debian's packages

# Use Debian's Python and meson, even if a pyenv or conda comes first on PATH. The demo and the tests
# need Debian's numpy, which belongs to Debian's Python.
PATH=/usr/bin:$PATH
export PATH
python=/usr/bin/python3

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd) || exit 2
case ${FORKSAFE_BUILD:-build} in
  /*) build=${FORKSAFE_BUILD} ;;
  *) build=$root/${FORKSAFE_BUILD:-build} ;;
esac

# What the build needs. The list is split into words where it is used.
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

# logged LOG MESSAGE COMMAND...: prints MESSAGE and runs the command with its output in LOG. Meanwhile
# it shows the last line of LOG: on a terminal each second, in place, elsewhere every half minute.
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

# show_progress LOG: shows the last line of LOG until it is killed. It also ends when the script ends.
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

# need_packages PKG...: installs the packages that are missing. If it can't, it says how to install them
# by hand and ends the script with 2.
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

  # Ask for the password now. Later the progress line would overwrite the question.
  [ "$as_root" != sudo ] || sudo -v || fail "sudo did not work: sudo apt-get install $missing"
  # Word splitting is meant: $as_root is zero, one or two words, $missing a list of packages.
  # If the update fails, the install may still succeed with the old lists. So only the install counts.
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

# build_targets [TARGET...]: configures the build folder if it is new, and compiles the targets (default:
# all). The compiler's output is shown only if the build fails. Without debugging information it takes a
# quarter less time. A script that needs it sets debug=true, with a build folder of its own.
debug=false
build_targets() {
  meson=meson
  [ -x /usr/bin/meson ] && meson=/usr/bin/meson
  command -v "$meson" >/dev/null || fail "meson not found: install it (Debian: meson)"

  mkdir -p "$build"
  build_log=$build/build.log
  # Meson itself takes a folder for configured if it has coredata.dat.
  if [ ! -f "$build/meson-private/coredata.dat" ]; then
    "$meson" setup "$build" "$root" -Ddebug="$debug" >"$build_log" 2>&1 || build_failed
  fi
  logged "$build_log" "building in $build" "$meson" compile -C "$build" "$@" || build_failed
}

build_failed() {
  tail -n 30 "$build_log" >&2
  fail "the build failed (all of it: $build_log)"
}

# make_venv NAME [--system-site-packages] PKG...: makes the virtual environment BUILD/NAME with these
# packages from PyPI, and with --system-site-packages also with Debian's. Only wheels are installed, because
# a numpy that is compiled here has another OpenBLAS. The environment is made again if the list of packages
# or the Python has changed. Returns 1 if a package is not available; pip.log says why.
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

# --clear removes an environment that is incomplete or belongs to an older Python. Two retries, because
# pip's default of five takes minutes to find out that there is no network.
fill_venv() {
  # shellcheck disable=SC2086 # $sees is no word or one
  "$python" -m venv --clear $sees "$venv" &&
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --only-binary :all: \
      --timeout 10 --retries 2 "$@"
}

# make_obspy_venv: makes a virtual environment with ObsPy that uses Debian's numpy and scipy. The other
# packages are versions that work with these.
make_obspy_venv() {
  make_venv obspy-venv --system-site-packages obspy==1.4.1 'matplotlib<3.9' 'contourpy<1.3' \
    'sqlalchemy<2'
}

# fetch_wheel NAME REQUIREMENT [PIP-OPTION...]: unpacks a wheel into BUILD/wheels/NAME. The tests use its
# files by path. Nothing is installed, and the wheel's dependencies are not fetched.
fetch_wheel() {
  folder=$build/wheels/$1
  wanted=$2
  [ -f "$folder.of" ] && [ "$(cat "$folder.of")" = "$wanted" ] && return 0
  shift
  rm -rf "$folder" "$folder.whl"
  mkdir -p "$folder" "$folder.whl"
  say "fetching $wanted from PyPI"
  # A shell ignores INT in what it starts with &, as scripts/test.sh starts this.
  env --default-signal=INT "$python" -m pip download --quiet --disable-pip-version-check --no-input \
    --no-deps --only-binary :all: --timeout 10 --retries 2 --dest "$folder.whl" "$@" \
    >"$build/wheels.log" 2>&1 &&
    "$python" -m zipfile -e "$folder.whl"/*.whl "$folder" &&
    printf '%s\n' "$wanted" >"$folder.of"
  fetched=$?
  rm -rf "$folder.whl"
  return $fetched
}

# fetch_test_wheels [NAME...]: fetches the wheels whose libraries are tested, or only those named, with the
# pip options $wheel_options.
wheel_options=
fetch_test_wheels() {
  missing=
  while read -r name requirement; do
    case " $* " in "  " | *" $name "*) ;; *) continue ;; esac
    # shellcheck disable=SC2086 # a list
    fetch_wheel "$name" "$requirement" $wheel_options || missing="$missing $requirement"
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
  [ -z "$missing" ] || say "not available from PyPI, so their tests are skipped:$missing"
}

# own_lists FOLDER LINE: sets $own_lists to options by which apt-get uses that line of a sources.list
# alone, with lists in that folder, and leaves the system's alone.
own_lists() {
  mkdir -p "$1/lists/partial"
  printf '%s\n' "$2" >"$1/sources.list"
  own_lists="-o Dir::Etc::SourceList=$1/sources.list -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists=$1/lists -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
    -o APT::Sandbox::User=root"
}

# fetch_sources PACKAGE FOLDER [PATTERN...]: unpacks the upstream part of Debian's source package into
# FOLDER, or only the files that match. Most systems have no lists of source packages, so this function
# fetches lists of its own.
fetch_sources() {
  source_package=$1
  unpacked=$2
  shift 2
  [ -d "$unpacked" ] && return 0
  rm -rf "$unpacked.part"
  # shellcheck disable=SC2016 # $(...) is for apt, not for the shell
  own_lists "$unpacked.part" "$(apt-get indextargets --format 'deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)' \
    'Created-By: Packages' 'Label: Debian' 2>/dev/null | head -n 1)"
  # shellcheck disable=SC2086
  (cd "$unpacked.part" && mkdir unpacked &&
    apt-get $own_lists update && apt-get $own_lists source --download-only --tar-only "$source_package" &&
    tar -C unpacked --strip-components=1 --wildcards -xf ./*.orig.tar.* "$@" &&
    mv unpacked "$unpacked") >"$(package_log)" 2>&1
  fetched=$?
  rm -rf "$unpacked.part"
  return $fetched
}
