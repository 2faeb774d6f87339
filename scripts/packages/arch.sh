# SPDX-License-Identifier: Apache-2.0
# The package of packaging/arch/PKGBUILD, with Debian's makepkg and pacman. Sourced by packages.sh.
. "$root/scripts/packages/recipes.sh"

package_arch() {
  check 'trees' make_layers || return
  check 'built, and the unit tests pass' build_by_makepkg || return
  note_files before
  # --nodeps, because pacman does not know the packages that Debian has installed. No configuration, because
  # Debian's has pacman check the free space, for which it needs /etc/mtab.
  check 'installed' in_recipes use sh -euc '
    pacman --config /dev/null --noconfirm --upgrade --nodeps --nodeps /artefacts/arch/forksafe-*.pkg.tar.*' ||
    return
  check 'verified' in_recipes use pacman --query --check --check forksafe
  check 'the installed command cures a Pool' cures use forksafe
  check 'removed, nothing is left' nothing_left pacman --noconfirm --remove forksafe
  skipped 'namcap' 'neither Debian nor PyPI has it'
}

# The archive lies beside the PKGBUILD, where makepkg looks before it downloads.
build_by_makepkg() {
  write_recipe arch/PKGBUILD "$artefacts/arch/PKGBUILD"
  # shellcheck disable=SC2016
  as_builder sh -euc '
    rm -rf makepkg
    mkdir makepkg
    cd makepkg
    cp /artefacts/arch/PKGBUILD /artefacts/sources/forksafe-*.tar.gz .
    makepkg --printsrcinfo >.SRCINFO
    cat .SRCINFO
    makepkg --nodeps --config /forksafe/packaging/arch/makepkg.conf.debian
  ' && in_recipes build sh -euc '
    cd /home/builder/arch/makepkg
    cp .SRCINFO ./*.pkg.tar.zst /artefacts/arch'
}
