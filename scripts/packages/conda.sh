# SPDX-License-Identifier: Apache-2.0
# The recipe in packaging/conda, with rattler-build and rattler from PyPI. Sourced by packages.sh.
. "$root/scripts/packages/recipes.sh"

package_conda() {
  check 'trees' make_layers || return
  check 'rattler-build and rattler from PyPI' \
    make_wheels py-rattler-build==0.73.0 py-rattler==0.28.0 || return
  write_recipe conda/recipe.yaml "$artefacts/conda/recipe.yaml"
  cp "$root/packaging/conda/build.sh" "$artefacts/conda"
  in_conda 'the recipe is rendered, with its requirements' render
  in_conda 'built in a prefix with a long name' build &&
    in_recipes build sh -euc 'cp /home/builder/conda/channel/linux-*/*.conda /artefacts/conda' || return
  in_conda "the recipe's tests pass, in another prefix" test
  in_conda 'installed into a third prefix' install || return
  check 'no file names the prefix of the build' as_builder sh -euc '! grep -rF placehold_placehold env'
  check 'the installed command cures a Pool' cures build /home/builder/conda/env/bin/forksafe
}

# in_conda NAME STEP: a row for a step of conda.py.
in_conda() { check "$1" as_builder venv/bin/python /forksafe/scripts/packages/conda.py "$2"; }
