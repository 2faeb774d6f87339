# SPDX-License-Identifier: Apache-2.0
"""Runs a regression of statsmodels in children, while another thread is inside a @ a."""
import numpy as np
from statsmodels.api import OLS

import wild

a = np.random.default_rng(1).standard_normal((300, 300))

with wild.in_flight(lambda: a @ a):
    wild.fork_and_compare(lambda: OLS(a[:200, 0], a[:200, 1:40]).fit().params)
