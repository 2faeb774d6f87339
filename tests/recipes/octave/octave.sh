#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# ~/bin/octave
exec \
  /usr/bin/forksafe \
  /usr/bin/octave-cli "$@"
