# SPDX-License-Identifier: Apache-2.0
# The modulefiles in packaging/modulefiles. The Tcl one is tried with environment-modules, which is in the
# layer for building. The Lua one is tried with Lmod, which is in the layer for use. Sourced by packages.sh.
. "$root/scripts/packages/recipes.sh"

package_modules() {
  check 'trees' make_layers || return
  check 'installed in the prefix that they name' install_for_modules || return
  check_modules build environment-modules /etc/profile.d/modules.sh tcl ''
  check_modules use Lmod /etc/profile.d/lmod.sh lua .lua
  for layer in build use; do
    in_recipes $layer rm -r /opt/forksafe /opt/modules
  done
}

# check_modules LAYER NAME PROFILE SOURCE SUFFIX
check_modules() {
  check "$2: load puts the command into PATH and MANPATH, unload takes it out" \
    in_module "$1" "$3" "$4" "$5" plain
  check "$2: the preload module preloads and cures a Pool, unload restores" \
    in_module "$1" "$3" "$4" "$5" preload
}

in_module() {
  module_layer=$1
  shift
  in_recipes "$module_layer" timeout 200 bash /forksafe/scripts/packages/modules_inside.bash "$version" "$@"
}

# Both layers get the same installation.
install_for_modules() {
  # shellcheck disable=SC2016
  as_builder sh -euc '
    rm -rf sources installed
    mkdir sources
    tar -C sources --strip-components=1 -xf "/artefacts/sources/forksafe-$0.tar.gz"
    meson setup sources/build sources --buildtype=release --prefix="/opt/forksafe/$0" --libdir=lib \
      -Dtests=false
    meson compile -C sources/build
    meson install -C sources/build --no-rebuild --destdir "$PWD/installed"
  ' "$version" &&
    in_recipes build tar -C /home/builder/modules/installed -cf /artefacts/modules/forksafe.tar opt &&
    for layer in build use; do
      in_recipes $layer tar -C / --no-same-owner -xf /artefacts/modules/forksafe.tar || return
    done &&
    rm "$artefacts/modules/forksafe.tar" &&
    cp "$root"/packaging/modulefiles/* "$artefacts/modules"
}
