# SPDX-License-Identifier: Apache-2.0
"""The plugin for pytest, as it is installed for this Python. Needs pytest and pytest-xdist."""
import sys
import unittest

from support import Case, python, run

HANGS = """
import os, sys, time
def test_slow():
    child = os.fork()
    if child == 0:
        time.sleep(60)
    time.sleep(3)
    os.kill(child, 9)
    os.waitpid(child, 0)
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        return
    raise AssertionError("the watchdog is a child of pytest's")
def test_fast():
    time.sleep(0.1)
"""
LOOKS = "import forksafe, os\ndef test_guarded():\n    print(forksafe.active())\n    assert forksafe.active()\n"


class Plugin(Case):
    def pytest(self, text, *options, **kwargs):
        self.write("test_it.py", text)
        return python("-m", "pytest", "-p", "no:cacheprovider", "-q", *options, "test_it.py",
                      cwd=self.folder, **kwargs)

    def assert_passed(self, done, tests=1):
        self.assertEqual(done.status, 0, done)
        self.assertIn(f"{tests} passed", done.output)
        self.assertEqual(done.errors, "", done)

    def test_it_does_nothing_unless_asked(self):
        done = self.pytest(LOOKS)
        self.assertEqual(done.status, 1, done)
        self.assertIn("1 failed", done.output)

    def test_forksafe_runs_the_tests_with_the_library(self):
        self.assert_passed(self.pytest(LOOKS, "--forksafe"))
        for option in ("-s", "--capture=sys", "--capture=tee-sys"):
            with self.subTest(option):
                done = self.pytest(LOOKS, "--forksafe", option)
                self.assert_passed(done)
        # What is printed is captured once, and shown.
        done = self.pytest(LOOKS + "    assert False", "--forksafe")
        self.assertEqual((done.status, done.lines.count("True")), (1, 1), done)

    def test_forksafe_in_the_settings_and_by_the_program_pytest(self):
        self.write("pytest.ini", "[pytest]\naddopts = --forksafe\n")
        self.assert_passed(self.pytest(LOOKS))
        self.assert_passed(run([sys.executable, "-c", "import pytest, sys\nsys.exit(pytest.main(['-q']))"],
                               cwd=self.folder))

    def test_reexec_in_a_test_does_not_start_pytest_again(self):
        self.write("app.py", "import forksafe\nforksafe.reexec()\n")
        imports = "def test_import():\n    import app\n"
        done = self.pytest(imports, "-rP")
        self.assert_passed(done)
        self.assertIn("forksafe: this program runs without the library: pytest runs it: use pytest --forksafe",
                      done.lines)
        self.assert_passed(self.pytest(imports, "--forksafe"))

    def test_workers_of_xdist_have_the_library(self):
        self.assert_passed(self.pytest(LOOKS + LOOKS.replace("_guarded", "_too"), "--forksafe", "-n", "2"), 2)

    def test_where_it_can_not_be_done_no_test_runs(self):
        self.write("conftest.py", "import threading\nend = threading.Event()\n"
                   "threading.Thread(target=end.wait, daemon=True).start()\n")
        done = self.pytest(LOOKS, "--forksafe")
        self.assertEqual(done.status, 2, done)
        self.assertNotIn("passed", done.output)
        self.assert_one_line(done, "--forksafe: 2 threads run already")

    def test_diagnose_tells_what_a_test_waits_for(self):
        for options in ([], ["-n", "2"], ["-s"]):
            with self.subTest(options):
                done = self.pytest(HANGS, "--forksafe-diagnose", "1", *options)
                self.assertEqual(done.status, 0, done)
                self.assertEqual(done.errors.count("forksafe: test_it.py::test_slow has run for 1 s"), 1, done)
                self.assertEqual(done.errors.count("is not stuck in a runtime"), 2, done)
                self.assertNotIn("test_fast has run", done.errors)

    def test_diagnose_is_off_under_pdb(self):
        done = self.pytest(HANGS, "--forksafe-diagnose", "1", "--pdb")
        self.assert_passed(done, 2)
        done = self.pytest("import time\ndef test_it():\n    breakpoint()\n    time.sleep(2)\n",
                           "--forksafe-diagnose", "1", stdin=b"continue\n")
        self.assert_passed(done)

    def test_diagnose_needs_a_time(self):
        for seconds in ("0", "-1", "nan", "inf"):
            with self.subTest(seconds):
                done = self.pytest(LOOKS, f"--forksafe-diagnose={seconds}")
                self.assertEqual(done.status, 4, done)
                self.assertEqual(done.errors.strip(),
                                 "ERROR: --forksafe-diagnose: the seconds must be a number above 0")


if __name__ == "__main__":
    unittest.main()
