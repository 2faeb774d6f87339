# SPDX-License-Identifier: Apache-2.0
# The Spack package in packaging/spack, with a stand-in for Spack (spack.py). Sourced by packages.sh.
. "$root/scripts/packages/recipes.sh"

package_spack() {
  check 'trees' make_layers || return
  write_recipe spack/package.py "$artefacts/spack/package.py"
  check 'installed by its arguments, and its test passes' install_by_spack || return
  check 'the installed command cures a Pool' cures build /home/builder/spack/prefix/bin/forksafe
  # shellcheck disable=SC2016
  check 'the variant +preload cures a Pool' cures build sh -euc '
    . /home/builder/spack/prefix/load.sh
    exec "$@"' sh
  skipped 'with Spack itself' 'neither Debian nor PyPI has it'
}

install_by_spack() {
  # shellcheck disable=SC2016
  as_builder sh -euc '
    rm -rf sources prefix
    mkdir sources
    tar -C sources --strip-components=1 -xf "/artefacts/sources/forksafe-$0.tar.gz"
    python3 /forksafe/scripts/packages/spack.py /artefacts/spack/package.py sources "$PWD/prefix"
  ' "$version"
}
