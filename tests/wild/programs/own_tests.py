# SPDX-License-Identifier: Apache-2.0
"""Runs another project's own tests in a process in which OpenBLAS has started its threads:
own_tests.py test|pytest ARGUMENT..."""
import runpy
import sys

import numpy as np

import wild

a = np.ones((400, 400))
a @ a
wild.parent_is_ready()
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
