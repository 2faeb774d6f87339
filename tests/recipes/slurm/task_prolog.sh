#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
echo "export LD_PRELOAD=/usr/lib/forksafe/libforksafe.so"
