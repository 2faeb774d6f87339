#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh scripts/format.sh [--check]: formats all C and C++ files by .clang-format.
#
# --check  changes no file: prints the differences, and ends with 1 if there are any
#
# Other versions of clang-format break lines elsewhere, so only version 14 (Debian 12's) is used.
# Ends with 77, which meson counts as a skipped test, where that version is not installed.
set -eu

case $* in
  '') mode=-i ;;
  --check) mode='--dry-run --Werror' ;;
  *)
    printf '%s\n' "format.sh: unknown arguments: $*. Usage: sh scripts/format.sh [--check]" >&2
    exit 2
    ;;
esac

clang_format=
for name in clang-format-14 clang-format; do
  if "$name" --version 2>/dev/null | grep -q 'version 14\.'; then
    clang_format=$name
    break
  fi
done
if [ -z "$clang_format" ]; then
  echo "clang-format 14 is not installed (Debian 12: apt-get install clang-format)"
  exit 77
fi

cd "$(dirname "$0")/.."
# shellcheck disable=SC2086 # $mode may be two words
find shim cli tests bench scripts -name '*.cpp' -o -name '*.h' -o -name '*.c' | sort |
  xargs "$clang_format" --style=file $mode || exit 1
