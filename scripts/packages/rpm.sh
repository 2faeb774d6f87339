# SPDX-License-Identifier: Apache-2.0
# The packages of packaging/rpm/forksafe.spec, with Debian's rpm. Sourced by packages.sh.
. "$root/scripts/packages/recipes.sh"

package_rpm() {
  check 'trees' make_layers || return
  check 'built, and the unit tests pass' build_rpms || return
  check 'rpmlint' rpmlint_rpms
  check 'the library needs libc alone, and no package can depend on it by name' library_of_rpm
  note_files before
  # --nodeps, because rpm does not know the packages that Debian has installed.
  check 'installed' in_recipes use sh -euc '
    rpm --install --nodeps /artefacts/rpm/forksafe-*."$(uname -m)".rpm' || return
  check 'verified' in_recipes use rpm --verify --nodeps forksafe forksafe-libs
  check 'the installed command cures a Pool' cures use forksafe
  check 'removed, nothing is left' nothing_left rpm --erase --nodeps forksafe forksafe-libs
}

build_rpms() {
  # --nodeps, because Debian's rpm does not know the packages that the spec names, which are Fedora's.
  # shellcheck disable=SC2016
  as_builder sh -euc '
    rm -rf rpmbuild
    rpmbuild -ba --nodeps --load /forksafe/packaging/rpm/macros.debian --define "_topdir $PWD/rpmbuild" \
      --define "_sourcedir /artefacts/sources" /forksafe/packaging/rpm/forksafe.spec
  ' && in_recipes build sh -euc '
    cd /home/builder/rpm/rpmbuild
    cp RPMS/*/*.rpm SRPMS/*.rpm /artefacts/rpm'
}

rpmlint_rpms() {
  in_recipes build sh -euc '
    cd /forksafe/packaging/rpm
    rpmlint --strict --rpmlintrc forksafe.rpmlintrc forksafe.spec /artefacts/rpm/*.rpm'
}

# Debian's rpm finds out by itself what a package needs and provides, as Fedora's does. rtld(GNU_HASH) is
# provided by ld.so, which is in the package of libc.
library_of_rpm() {
  # shellcheck disable=SC2016
  in_recipes build sh -euc '
    cd /artefacts/rpm
    rpm --query --requires --package forksafe-libs-*.rpm | grep -v "^rpmlib(" | tee /tmp/needs
    rpm --query --provides --package forksafe-*.rpm | tee /tmp/provides
    if grep -vE "^libc\.so\.6\(|^rtld\(" /tmp/needs || grep "\.so" /tmp/provides; then
      exit 1
    fi
  '
}
