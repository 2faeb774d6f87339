# SPDX-License-Identifier: Apache-2.0
# What rpm.sh, arch.sh, conda.sh, spack.sh, easybuild.sh and modules.sh share. Sourced by them.
#
# They use two layers of bookworm, which are kept for the next run. Both have numpy with the OpenMP build of
# OpenBLAS, a user "builder", the repository at /forksafe, and at /pypi the wheels of make_wheels:
#   recipes-build  compilers and the tools that make packages
#   recipes-use    no compiler; the libraries that the command needs, and the tools that install packages
# environment-modules is in the first and Lmod in the second, because they conflict.

recipes_build="$build_packages rpm rpmlint makepkg pacman-package-manager libarchive-tools fakeroot
  patchelf file bzip2 xz-utils zstd python3-venv environment-modules python3-numpy libopenblas0-openmp"
recipes_use='libunwind8 libfmt9 rpm pacman-package-manager lmod python3-numpy libopenblas0-openmp'

# in_recipes build|use COMMAND...
in_recipes() {
  recipes_layer=recipes-$1
  shift
  run_in_tree bookworm "$recipes_layer" --bind "$root" /forksafe ro --bind "$artefacts" /artefacts rw \
    --bind "$packages/pypi" /pypi ro "$@"
}
mkdir -p "$packages/pypi"

# as_builder COMMAND...: runs the command as an ordinary user, in the layer for building, in the folder
# ~/KIND.
as_builder() {
  # shellcheck disable=SC2016 # the variables are the inner shell's
  in_recipes build runuser -u builder -- sh -euc '
    HOME=/home/builder
    mkdir -p "$HOME/$0"
    cd "$HOME/$0"
    exec "$@"
  ' "$kind" "$@"
}

# make_layers: makes both layers with their packages. Returns 1 if that fails; recipes-LAYER.log tells why.
make_layers() {
  make_tree bookworm && make_layer build "$recipes_build" && make_layer use "$recipes_use"
}

# make_layer build|use PACKAGES
make_layer() {
  # shellcheck disable=SC2086 # a list, here and below
  in_recipes "$1" grep -qxF "$(say $2)" /var/lib/forksafe-layer 2>/dev/null && return 0
  drop_layer "recipes-$1"
  # shellcheck disable=SC2016,SC2086
  logged "$packages/recipes-$1.log" "$kind: installing packages into the layer recipes-$1" in_recipes "$1" \
    sh -euc '
      apt-get -q update
      apt-get -q install -y --no-install-recommends "$@"
      useradd --create-home builder
      echo "$@" >/var/lib/forksafe-layer
    ' sh $2
}

# write_recipe FILE TARGET: copies a file of packaging/, with the SHA-256 of the source archive.
write_recipe() {
  archive_sum=$(sha256sum "$artefacts/sources/forksafe-$version.tar.gz" | cut -d ' ' -f 1)
  sed "s/\<0\{64\}\>/$archive_sum/" "$root/packaging/$1" >"$2"
}

# note_files before|after: notes which files the layer for use has. It leaves out logs and databases in /var,
# and folders, some of which belong to the system (/usr/share/licenses).
note_files() { in_recipes use find /etc /opt /usr -not -type d | LC_ALL=C sort >"$packages/$kind.$1"; }

# nothing_left COMMAND...: removes the package with COMMAND, in the layer for use. Passes if the layer then has
# the files that it had before.
nothing_left() {
  in_recipes use "$@" && note_files after && diff "$packages/$kind.before" "$packages/$kind.after"
}

# cures build|use COMMAND...: checks that in that layer a Pool of numpy hangs by itself, and passes under
# COMMAND.
cures() {
  cured_layer=$1
  shift
  # On one processor OpenBLAS has one thread, and nothing hangs.
  # shellcheck disable=SC2016
  in_recipes "$cured_layer" env OMP_NUM_THREADS=4 sh -euc '
    pool="python3 /forksafe/tests/scenarios/pool.py 20"
    status=0
    timeout 10 $pool || status=$?
    if [ $status -ne 124 ]; then
      echo "without forksafe the Pool did not hang, but ended with status $status"
      exit 1
    fi
    echo "(without)"
    timeout 120 "$@" $pool
    echo "(with)"
  ' sh "$@"
}

# make_wheels REQUIREMENT...: installs these from PyPI into the virtual environment ~/KIND/venv of the
# builder. pip makes the wheels outside of the tree, because there it has this machine's configuration.
make_wheels() {
  wheels=$packages/pypi/$kind
  if [ "$(cat "$wheels.of" 2>/dev/null)" != "$*" ]; then
    rm -rf "$wheels"
    "$python" -m pip wheel --quiet --disable-pip-version-check --no-input --timeout 10 --retries 2 \
      --wheel-dir "$wheels" "$@" && say "$*" >"$wheels.of"
  fi && as_builder sh -euc '
    python3 -m venv --clear venv
    venv/bin/pip install --quiet --no-index --find-links "/pypi/$0" "$@"
  ' "$kind" "$@"
}
