#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh scripts/lint.sh [FILE...]: runs clang-tidy, with the checks of .clang-tidy, over these C++ files
# (default: the library and the command, which takes some minutes). Ends with 1 if it finds something.
#
# Installs what it needs. The checks are for clang-tidy 14 (Debian 12's); other versions may find more.
. "$(dirname "$0")/common.sh"

need_packages $build_packages python3 clang-tidy
# Without debugging information, as scripts/test.sh builds, the command is compiled in a few large units, and
# its files are not in the list.
lint=$build/lint
[ -f "$lint/compile_commands.json" ] || meson setup "$lint" "$root" -Dtests=false >/dev/null

if [ $# -eq 0 ]; then
  cd "$lint" # paths in compile_commands.json are relative to it
  # shellcheck disable=SC2046 # no path here has a space
  set -- $("$python" -c '
import json
units = json.load(open("compile_commands.json"))
print(*sorted({unit["file"] for unit in units if unit["file"].startswith(("../shim/", "../cli/"))}))')
fi

# lint_one FOLDER FILE: prints what clang-tidy finds, without the line that counts suppressed warnings.
# shellcheck disable=SC2016 # the variables are the inner shell's
lint_one='
  found=$(clang-tidy --quiet -p "$0" "$1" 2>&1 | grep -v "^[0-9]* warnings* generated\.$")
  [ -z "$found" ] || { printf "%s\n" "$found"; exit 1; }'
printf '%s\n' "$@" | xargs -P "$(nproc)" -n 1 sh -c "$lint_one" "$lint" || exit 1
