# SPDX-License-Identifier: Apache-2.0
"""The Python package, as it is installed for this Python."""
import inspect
import os
import re
import shutil
import sys
import unittest
import zipfile
from pathlib import Path

import forksafe
from support import SOURCE, Case, python, run

IS_ACTIVE = "import forksafe; print(forksafe.active())"
REEXEC = "import forksafe\nforksafe.reexec()\n"
STATIC_PROGRAM = "/sbin/ldconfig"


class Active(Case):
    def test_it_is_false_without_the_library(self):
        self.assert_prints(python("-c", IS_ACTIVE), "False")

    def test_it_is_true_under_the_command(self):
        self.assert_prints(python("-m", "forksafe", sys.executable, "-c", IS_ACTIVE), "True")

    def test_it_is_false_when_the_library_is_switched_off(self):
        self.assert_prints(python("-m", "forksafe", "--off", sys.executable, "-c", IS_ACTIVE), "False")

    def test_it_is_false_after_a_dlopen_of_the_library(self):
        for mode in ("RTLD_GLOBAL", "RTLD_LOCAL"):
            with self.subTest(mode):
                self.assert_prints(python("-c", f"import ctypes, forksafe\n"
                                          f"ctypes.CDLL(forksafe.library(), ctypes.{mode})\n"
                                          f"print(forksafe.active())"), "False")

    def test_it_is_true_in_a_forked_child(self):
        self.assert_prints(
            python("-c", REEXEC + "import os\nif os.fork() == 0:\n"
                   "    print(forksafe.active(), flush=True); os._exit(0)\nos.wait()"), "True")


class Library(Case):
    def test_it_is_the_one_beside_the_package(self):
        self.assertTrue(Path(forksafe.library()).samefile(
            Path(forksafe._command()).parent.parent / "libexec/forksafe/libforksafe.so"))


class Environ(Case):
    def test_a_child_with_these_variables_is_guarded(self):
        self.assert_prints(python("-c", "import forksafe, os, subprocess, sys\n"
                                  f"subprocess.run([sys.executable, '-c', {IS_ACTIVE!r}],\n"
                                  "  env={**os.environ, **forksafe.environ()})"), "True")

    def test_it_has_what_the_options_say_and_nothing_else(self):
        done = python("-c", "import forksafe, pathlib\nprint(sorted(forksafe.environ(child_threads=3, "
                      "wait_ms=7, pool='drop', log=pathlib.Path('a b.log')).items())[:-1])",
                      cwd=self.folder)
        self.assert_prints(done, str([
            ("FORKSAFE_CHILD_THREADS", "3"), ("FORKSAFE_LOG", f"{self.folder}/a b.log"),
            ("FORKSAFE_POOL", "drop"), ("FORKSAFE_WAIT_MS", "7"), ("KMP_INIT_AT_FORK", "TRUE")]))

    def test_it_keeps_what_is_preloaded_but_for_another_libforksafe(self):
        other = self.folder / "libforksafe.so"
        shutil.copy(forksafe.library(), other)
        done = python("-c", "import forksafe\nprint(forksafe.environ()['LD_PRELOAD'])",
                      env={"LD_PRELOAD": f"{other}:libm.so.6"})
        self.assert_prints(done, forksafe.library() + ":libm.so.6")

    def test_a_wrong_option_is_an_error_of_one_line(self):
        with self.assertRaisesRegex(forksafe.Error, r"^--pool burn can't be read: [^\n]*$"):
            forksafe.environ(pool="burn")


class Run(Case):
    def test_the_program_is_guarded(self):
        done = forksafe.run([sys.executable, "-c", IS_ACTIVE], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "True\n", ""))

    def test_a_shell_and_a_lone_name_work_as_in_subprocess(self):
        done = forksafe.run("echo $FORKSAFE_WAIT_MS; exit 3", shell=True, wait_ms=9, capture_output=True)
        self.assertEqual((done.returncode, done.stdout), (3, b"9\n"))
        self.assertEqual(forksafe.run("true").returncode, 0)

    def test_a_program_that_can_not_be_guarded_does_not_run(self):
        for program, status in ((STATIC_PROGRAM, 2), ("no-such-program", 127)):
            with self.subTest(program):
                done = forksafe.run([program, "--version"], capture_output=True, text=True)
                self.assertEqual((done.returncode, done.stdout), (status, ""))
                self.assertRegex(done.stderr, r"^forksafe: [^\n]*\n$")


class Runtimes(Case):
    def test_a_process_without_any_has_none(self):
        self.assert_prints(python("-c", "import forksafe; print(forksafe.runtimes())"), "[]")
        with self.assertRaisesRegex(forksafe.Error, "^process 4194305: no process has this id"):
            forksafe.runtimes(2**22 + 1)  # above the kernel's highest id


class Module(Case):
    def test_it_is_the_command(self):
        done = python("-m", "forksafe", "--version")
        self.assertRegex(done.output, r"^forksafe \d+\.\d+\.\d+\n$")
        self.assertEqual(done.output, run([forksafe._command(), "--version"]).output)
        self.assertEqual(python("-m", "forksafe", "sh", "-c", "exit 5").status, 5)

    def test_what_python_ignores_is_not_ignored_in_the_program(self):
        ignored = ["grep", "^SigIgn:", "/proc/self/status"]
        self.assert_prints(python("-m", "forksafe", *ignored), *run(ignored).lines)


class Reexec(Case):
    def test_a_script_gets_its_arguments_its_input_and_its_id(self):
        script = self.write("app.py", "import os\nbefore = os.environ.get('BEFORE')\n"
                            "os.environ['BEFORE'] = str(os.getpid())\nprint('once' if before else 'twice')\n" +
                            REEXEC + "import sys\nprint(forksafe.active(), before == str(os.getpid()))\n"
                            "print([os.fsencode(word) for word in sys.argv[1:]], sys.stdin.read())\n"
                            "print([name for name in os.environ if name.startswith('FORKSAFE')])\nsys.exit(7)")
        done = python(script, "a b", "", "-c", b"\xff", stdin=b"data")
        self.assertEqual((done.status, done.errors), (7, ""), done)
        self.assertEqual(done.lines, ["twice", "once", "True True",
                                      str([b"a b", b"", b"-c", b"\xff"]) + " data", "[]"])

    def test_all_ways_to_start_a_program(self):
        program = REEXEC + "import sys\nprint(forksafe.active(), sys.argv[1:], sys.flags.optimize)\n"
        self.write("app.py", program)
        self.write("package/__main__.py", program)
        self.write("space d/app.py", program)
        with zipfile.ZipFile(self.folder / "app.pyz", "w") as archive:
            archive.writestr("__main__.py", program)
        tool = self.write("tool", f"#!{sys.executable} -O\n{program}")
        os.chmod(tool, 0o755)
        for words in (["app.py"], ["-m", "app"], ["-m", "package"], ["package"], ["app.pyz"],
                      ["space d/app.py"], ["-c", program], ["-X", "dev", "-W", "error", "app.py"],
                      ["-I", "app.py"]):
            with self.subTest(words):
                self.assert_prints(python("-O", *words, "x", cwd=self.folder), "True ['x'] 1")
        if not set(sys.executable) & set(" \t"):  # the kernel splits the first line of a script there
            self.assert_prints(run([tool, "x"]), "True ['x'] 1")

    def test_under_the_command_nothing_happens(self):
        self.assert_prints(python("-m", "forksafe", sys.executable, "-c", REEXEC + IS_ACTIVE), "True")

    def test_children_of_multiprocessing_are_guarded_or_left_alone(self):
        script = self.write("app.py", "import multiprocessing, sys, threading\nend = threading.Event()\n"
                            "if __name__ == '__main__' and 'thread' in sys.argv:\n"
                            "    threading.Thread(target=end.wait).start()\n" + REEXEC + "def look(_):\n    return forksafe.active()\n"
                            "if __name__ == '__main__':\n"
                            "    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:\n"
                            "        print(pool.map(look, [0]))\nend.set()\n")
        for method in ("fork", "spawn", "forkserver"):
            with self.subTest(method):
                self.assert_prints(python(script, method), "[True]")
                # Only the parent says that it can't be started again.
                self.refused("2 threads run already", script, method, "thread", lines=["[False]"])

    def refused(self, reason, *words, lines=("False",), **kwargs):
        done = python(*words, **kwargs)
        self.assertEqual((done.status, done.lines), (0, list(lines)), done)
        self.assert_one_line(done, "^forksafe: this program runs without the library: " + reason)

    def test_it_says_why_it_can_not_and_goes_on(self):
        code = REEXEC + "forksafe.reexec()\nprint(forksafe.active())\n"
        self.refused("2 threads run already", "-c", "import threading\nend = threading.Event()\n"
                     "threading.Thread(target=end.wait).start()\n" + code + "end.set()")
        self.refused("the program came by standard input", "-", stdin=code.encode())
        self.refused("the program came by standard input", stdin=code.encode())
        self.refused("the program came from /dev/stdin, which can't be read again", "/dev/stdin", stdin=code.encode())
        self.refused("IPython and Jupyter", "-c", "import sys, types\n"
                     "sys.modules['IPython'] = types.SimpleNamespace(get_ipython=lambda: 1)\n" + code)
        self.refused("Python is embedded", "-c", "import sys\nsys.executable = '/bin/sh'\n" + code)
        self.refused("it works on Linux only, not on darwin", "-c",
                     "import sys\nsys.platform = 'darwin'\n" + code)
        self.refused("it was started again with the library, which is not there", "-c",
                     "import os\nos.environ['FORKSAFE_REEXEC'] = str(os.getpid())\n" + code)
        self.write("app.py", "import os\nos.chdir('/')\n" + code)
        self.refused("the current folder has changed", "app.py", cwd=self.folder)

    def test_a_forked_child_is_not_started_again(self):
        self.write("app.py", REEXEC + "print(forksafe.active(), flush=True)\n")
        server = self.write("server.py", "import os\nprint('server', flush=True)\n"
                            "open('/proc/self/comm', 'w').write('a) R 1 (b c')\n"
                            "if os.fork() == 0:\n    import app\nelse:\n    os.wait()\n")
        self.refused("this process was forked: start its parent under forksafe", server,
                     lines=["server", "False"])

    def test_after_chdir_no_other_program_is_started(self):
        program = "import os\nos.chdir('other')\n" + REEXEC + "print(forksafe.active())\n"
        other = "print('another program')\n"
        for name in ("app.py", "package/__main__.py"):
            self.write(name, program)
            self.write("other/" + name, other)
        self.write("module.py", program)
        self.write("package_too/__init__.py", program)
        self.write("package_too/__main__.py", "")
        for folder, text in ((self.folder, program), (self.folder / "other", other)):
            with zipfile.ZipFile(folder / "app.pyz", "w") as archive:
                archive.writestr("__main__.py", text)
        for words in (["app.py"], ["./app.py", "."], ["package"], ["app.pyz"], ["-m", "app"], ["-um", "module"],
                      ["-m", "package"], ["-m", "package_too"]):  # the last calls it while -m looks for __main__
            with self.subTest(words):
                self.refused("the current folder has changed: call forksafe.reexec\\(\\) before", *words,
                             cwd=self.folder)
        # The same program in the new folder, and in the old one again.
        (self.folder / "other/other").mkdir()
        self.write("back.py", "import os\nos.chdir('other')\nos.chdir('..')\n" + REEXEC + IS_ACTIVE)
        self.write("tool.py", "import sys\ndel sys.argv[0]\nexec(open(sys.argv[0]).read())\n")
        for words in ([str(self.folder / "app.py")], ["-c", program], ["back.py"], ["-m", "back"],
                      ["-m", "cProfile", "-o", "profile", "back.py"], ["tool.py", "back.py"]):
            with self.subTest(words):
                self.assert_prints(python(*words, cwd=self.folder), "True")

    def test_a_closed_stream_does_no_harm(self):
        closes = "import os, sys\nsys.stdout.close()\n"
        self.assert_prints(python("-c", closes + REEXEC + "os.write(1, b'%d' % forksafe.active())"), "1")
        full = "import os, sys\nsys.stdout = open('/dev/full', 'w')\nsys.stdout.write('lost')\n"
        self.assert_prints(python("-c", full + REEXEC + "os.write(1, b'%d' % forksafe.active())\nos._exit(0)"), "1")
        # The line that says why goes nowhere.
        self.assert_prints(python("-c", "import sys\nsys.platform = 'darwin'\nsys.stderr.close()\n" + REEXEC +
                                  IS_ACTIVE), "False")

    def test_an_interactive_session_goes_on(self):
        done = python("-i", "-q", stdin=(REEXEC + "forksafe.active()\n").encode())
        self.assertEqual((done.status, done.lines), (0, ["False"]), done)
        self.assertIn("an interactive session can't be started again", done.errors)
        # The program of -i may be started again: the session has not begun.
        done = python("-i", "-c", REEXEC, stdin=b"forksafe.active()\n")
        self.assertEqual((done.status, done.lines), (0, ["True"]), done)

    def test_a_variable_that_came_from_a_parent_does_not_count(self):
        self.assert_prints(python("-c", REEXEC + IS_ACTIVE, env={"FORKSAFE_REEXEC": "1"}), "True")

    def test_switched_off_it_does_nothing(self):
        self.assert_prints(python("-c", REEXEC + IS_ACTIVE, env={"FORKSAFE": "0"}), "False")


class Documentation(Case):
    def test_the_page_has_each_function_with_its_arguments(self):
        page = (SOURCE / "docs/python.md").read_text()
        documented = set(re.findall(r"^### `(.*)`$", page, re.MULTILINE))
        actual = set()
        for name in forksafe.__all__:
            function = getattr(forksafe, name)
            if inspect.isfunction(function):
                parameters = inspect.signature(function).parameters.values()
                name += str(inspect.Signature([p.replace(annotation=p.empty) for p in parameters]))
            actual.add(name)
        self.assertEqual(documented, actual)

    def test_its_examples_compile(self):
        page = (SOURCE / "docs/python.md").read_text()
        examples = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        self.assertGreater(len(examples), 3)
        for example in examples:
            compile(example, "docs/python.md", "exec")


class Checkout(Case):
    def test_import_from_the_sources_does_no_harm(self):
        done = python("-c", REEXEC + "forksafe.reexec()\nprint(forksafe.active())",
                      env={"PYTHONPATH": str(SOURCE / "python")})
        self.assertEqual((done.status, done.lines), (0, ["False"]), done)
        self.assert_one_line(done, "is a source checkout: install the package$")


class Installation(Case):
    """A copy of what is installed, in a folder with a space, with its parts taken away."""

    def setUp(self):
        super().setUp()
        self.prefix = self.folder / "a prefix"
        self.packages = self.prefix / "lib/python3/site-packages"
        self.command = self.prefix / "bin/forksafe"
        self.library = self.prefix / "libexec/forksafe/libforksafe.so"
        shutil.copytree(Path(forksafe.__file__).parent, self.packages / "forksafe")
        shutil.copytree(Path(forksafe.library()).parent, self.library.parent)
        self.command.parent.mkdir()
        shutil.copy(forksafe._command(), self.command)

    def python(self, *words):
        return python(*words, env={"PYTHONPATH": str(self.packages)})

    def test_it_works_in_a_folder_with_a_space(self):
        self.assert_prints(self.python("-c", REEXEC + IS_ACTIVE + "; print(forksafe.library())"),
                           "True", str(self.library))

    def assert_broken(self, pattern):
        done = self.python("-c", REEXEC + IS_ACTIVE)
        self.assertEqual((done.status, done.lines), (0, ["False"]), done)
        self.assert_one_line(done, "^forksafe: this program runs without the library: .*" + pattern)
        for words in (["-m", "forksafe", "echo", "unguarded"],
                      ["-c", "import forksafe, sys\n"
                       "try: sys.exit(forksafe.run(['echo', 'unguarded']).returncode)\n"
                       "except forksafe.Error as e: print(e, file=sys.stderr); sys.exit(2)"]):
            with self.subTest(words):
                done = self.python(*words)
                self.assertEqual((done.status, done.output), (2, ""), done)
                self.assert_one_line(done, pattern)
        for call in ("library", "environ", "runtimes"):
            if call == "runtimes" and self.command.exists():
                continue  # list needs no library
            with self.subTest(call):
                done = self.python("-c", f"import forksafe\ntry: forksafe.{call}()\n"
                                   "except forksafe.Error as e: print(e)")
                self.assertEqual(len(done.lines), 1, done)
                self.assertRegex(done.output, pattern)

    def test_a_missing_library_is_one_line(self):
        self.library.unlink()
        self.assert_broken("libforksafe.so: No such file or directory: install forksafe again$")

    def test_a_library_that_was_cut_off_is_one_line(self):
        os.truncate(self.library, 5000)
        self.assert_broken("libforksafe.so: the file was cut off: install forksafe again$")

    def test_a_missing_command_is_one_line(self):
        self.command.unlink()
        self.assert_broken("a prefix/bin/forksafe is missing: install forksafe again$")

    def test_a_command_that_can_not_be_run_is_one_line(self):
        self.command.write_bytes(b"\x7fELF")
        self.assert_broken("a prefix/bin/forksafe: Exec format error: install forksafe again$")

    def test_of_two_installations_the_one_that_is_asked_counts(self):
        code = ("import forksafe\nprint(forksafe.active(), sum('libforksafe.so' in line and ' r-xp ' in line "
                "for line in open('/proc/self/maps')), forksafe.library())")
        inner = [str(self.command), sys.executable, "-c", code]
        self.assert_prints(python("-m", "forksafe", *inner, env={"PYTHONPATH": ""}),
                           f"True 1 {forksafe.library()}")


if __name__ == "__main__":
    unittest.main()
