# SPDX-License-Identifier: Apache-2.0
"""A Pool of LightGBM: hangs without the library, and is exact with it. Needs lightgbm and pytest."""
import os
import sys
import unittest

from support import Case, python

POOL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lightgbm_pool.py")


class LightGbm(Case):
    def test_the_pool_hangs_without_the_library(self):
        done = python(POOL, timeout=10)
        self.assertEqual((done.status, done.output), (None, ""), done)

    def test_it_is_exact_under_the_command(self):
        self.assert_prints(python("-m", "forksafe", sys.executable, POOL), "exact")

    def test_it_is_exact_with_two_lines_at_the_top(self):
        self.assert_prints(python(POOL, "reexec", "runtimes"), "[('openmp', True)]", "exact")

    def test_it_is_exact_in_pytest(self):
        done = python("-m", "pytest", "-p", "no:cacheprovider", "-q", "--forksafe", POOL, cwd=self.folder)
        self.assertEqual(done.status, 0, done)

    def test_pytest_tells_why_it_hangs(self):
        done = python("-m", "pytest", "-p", "no:cacheprovider", "-q", "--forksafe-diagnose", "4", POOL,
                      cwd=self.folder, timeout=12)
        self.assertIsNone(done.status)
        self.assertIn("is stuck", done.errors)
        self.assertIn("This is a forked child of", done.errors)


if __name__ == "__main__":
    unittest.main()
