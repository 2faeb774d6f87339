# SPDX-License-Identifier: Apache-2.0
"""One file for each area that is measured. Its function measure(bench) adds the rows."""
