# SPDX-License-Identifier: Apache-2.0
# The easyconfig in packaging/easybuild, with EasyBuild from PyPI. Sourced by packages.sh.
. "$root/scripts/packages/recipes.sh"

package_easybuild() {
  check 'trees' make_layers || return
  check 'EasyBuild from PyPI' make_wheels easybuild==5.4.1 pycodestyle==2.14.0 || return
  easyconfig=forksafe-$version-GCCcore-14.3.0.eb
  write_recipe easybuild/forksafe.eb "$artefacts/easybuild/$easyconfig"
  check 'eb finds no fault with the style and the checksum' \
    eb --check-contrib "/artefacts/easybuild/$easyconfig"
  check 'eb knows all dependencies' eb "/artefacts/easybuild/$easyconfig" --dry-run --robot
  check 'built and installed by eb' build_by_easybuild || return
  check 'its module puts the command into PATH, and cures a Pool' cures build bash -euc '
    . /etc/profile.d/modules.sh
    module use /home/builder/easybuild/installed/modules/all
    module load forksafe
    exec forksafe "$@"' bash
}

# eb OPTION...: runs eb as an ordinary user, because EasyBuild refuses to run as root.
eb() {
  # shellcheck disable=SC2016
  as_builder bash -euc '
    . /etc/profile.d/modules.sh
    export PATH=$PWD/venv/bin:$PATH EASYBUILD_PREFIX=$PWD/installed
    export EASYBUILD_MODULES_TOOL=EnvironmentModules EASYBUILD_MODULE_SYNTAX=Tcl
    export EASYBUILD_SOURCEPATH=/artefacts/sources
    exec eb "$@"
  ' bash "$@"
}

# The modules of the dependencies, which easybuild.py writes, are empty: the software is installed from
# Debian.
build_by_easybuild() {
  as_builder sh -euc '
    rm -rf installed system
    python3 /forksafe/scripts/packages/easybuild.py "$1" system
  ' sh "/artefacts/easybuild/$easyconfig" &&
    eb --robot=system "system/forksafe-$version.eb"
}
