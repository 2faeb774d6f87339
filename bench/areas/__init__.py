# SPDX-License-Identifier: Apache-2.0
"""One file for each area that is measured: measure(bench) adds its rows."""
