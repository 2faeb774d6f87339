#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# rattler-build runs this in the sources. conda-forge's compilers set MESON_ARGS.
set -eu
# shellcheck disable=SC2086 # a list
meson setup build --buildtype=release ${MESON_ARGS:-} --prefix="$PREFIX" --libdir=lib -Dtests=false
meson compile -C build -j "$CPU_COUNT"
meson install -C build --no-rebuild
