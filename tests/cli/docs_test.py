# SPDX-License-Identifier: Apache-2.0
"""docs_test.py TEST FORKSAFE SOURCE: help, man page and completions say the same, and work.

Ends with 77 where a program that the test needs is missing.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

FORKSAFE, SOURCE = sys.argv[2], pathlib.Path(sys.argv[3])
HERE = pathlib.Path(__file__).parent
MAN_PAGE = SOURCE / "cli/forksafe.1"
LIBRARY_MAN_PAGE = SOURCE / "shim/libforksafe.7"
COMPLETIONS = SOURCE / "cli/completions"
BASH_COMPLETION = "/usr/share/bash-completion/bash_completion"
SUBCOMMANDS = ["list", "check", "diagnose"]


def help_of(form):
    command = [FORKSAFE] + ([form] if form else []) + ["--help"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def options_of(form):
    """The options in the help of a form: "--pool", "-h"."""
    rows = re.findall(r"^  (-\S.*?)(?:  |$)", help_of(form), re.MULTILINE)
    return sorted(word for row in rows for word in re.findall(r"(?<!\S)--?[a-z][a-z-]*", row))


def long_options_of(form):
    return [option for option in options_of(form) if option.startswith("--")]


class Help(unittest.TestCase):
    def test_it_fits_a_terminal(self):
        for form in ["", *SUBCOMMANDS]:
            with self.subTest(form):
                lines = help_of(form).splitlines()
                self.assertLessEqual(len(lines), 24)
                self.assertLessEqual(max(map(len, lines)), 80)

    def test_it_names_each_subcommand(self):
        rows = re.findall(r"^  (\w+) {2,}\S", help_of("").split("Subcommands")[1], re.MULTILINE)
        self.assertEqual(sorted(rows), sorted(SUBCOMMANDS))

    def test_it_ends_with_an_example(self):
        self.assertRegex(help_of("").splitlines()[-1], r"^  forksafe ")
        for form in SUBCOMMANDS:
            self.assertRegex(help_of(form).splitlines()[-1], rf"^Example: forksafe {form} ")

    def test_it_names_options(self):
        for form in ["", *SUBCOMMANDS]:
            self.assertIn("--help", options_of(form))
        self.assertIn("--child-threads", options_of(""))


class ManPage(unittest.TestCase):
    def setUp(self):
        self.text = MAN_PAGE.read_text().replace("\\-", "-")

    def section(self, name, level="Sh", text=None):
        ends = r"^\.Sh" if level == "Sh" else r"^\.S[hs]"
        found = re.search(rf"^\.{level} {name}\n(.*?)(?={ends}|\Z)", text or self.text, re.M | re.S)
        self.assertIsNotNone(found, name)
        return found[1]

    @staticmethod
    def flags(text):
        """The options in "Fl h , Fl -help" and the like. "Fl -" alone is the separator."""
        flags = re.findall(r"\bFl (-?[a-z][a-z-]*)", text)
        return sorted({"-" + flag for flag in flags})

    def test_options_are_those_of_the_help(self):
        for form in ["", *SUBCOMMANDS]:
            with self.subTest(form):
                options = self.section(f"Of {form or 'a command that is run'}", "Ss")
                items = "\n".join(re.findall(r"^\.It .*", options, re.MULTILINE))
                self.assertEqual(self.flags(items), options_of(form))

    def test_synopsis_is_that_of_the_help(self):
        forms = re.split(r"^\.Nm\n", self.section("SYNOPSIS"), flags=re.MULTILINE)[1:]
        in_common = ["--help", "--print-library", "--version", "-h"]
        seen = set()
        for text in forms:
            if any(flag in in_common for flag in self.flags(text)):
                continue
            first = re.match(r"\.Cm (\w+)\n", text)
            form = first[1] if first else ""
            seen.add(form)
            with self.subTest(form):
                own = [option for option in options_of(form) if option not in in_common]
                self.assertEqual(self.flags(text), own)
        self.assertEqual(sorted(seen), sorted(["", *SUBCOMMANDS]))

    def test_it_names_no_other_option(self):
        known = {option for form in ["", *SUBCOMMANDS] for option in options_of(form)}
        self.assertEqual(set(self.flags(self.text)), known)
        examples = re.findall(r"\bforksafe .*", self.section("EXAMPLES"))
        self.assertGreater(len(examples), 4)
        for example in examples:
            own = example.split("|")[0].split(" -- ")[0]
            self.assertLessEqual(set(re.findall(r"--[a-z][a-z-]*", own)), known)

    def test_each_variable_of_the_library(self):
        table = (SOURCE / "shim/options.cpp").read_text()
        variables = re.findall(r'\{"(FORKSAFE\w*)",', table)
        self.assertGreater(len(variables), 1)
        environment = self.section("ENVIRONMENT", text=LIBRARY_MAN_PAGE.read_text())
        items = re.findall(r"^\.It Ev (FORKSAFE\w*)", environment, re.MULTILINE)
        self.assertEqual(sorted(items), sorted(variables))

    def test_each_verdict_of_diagnose(self):
        rules = (SOURCE / "cli/verdicts/diagnosis.cpp").read_text()
        table = re.search(r"^constexpr Rule kRules.*?^};", rules, re.MULTILINE | re.DOTALL)[0]
        codes = re.findall(r'^ *\{"([a-z0-9-]+)",', table, re.MULTILINE)
        self.assertGreater(len(codes), 1)
        for line in re.findall(r"^ *result(?:->|\.)code = .*", rules, re.MULTILINE):
            codes += re.findall(r'"([a-z0-9-]+)"', line)
        items = re.findall(r"^\.It Cm (\S+)", self.section("DIAGNOSTICS"), re.MULTILINE)
        self.assertEqual(sorted(items), sorted(set(codes)))


class Lint(unittest.TestCase):
    def test_mandoc_finds_nothing(self):
        found = subprocess.run(["mandoc", "-Tlint", "-Wwarning", MAN_PAGE, LIBRARY_MAN_PAGE],
                               capture_output=True, text=True)
        self.assertEqual((found.returncode, found.stdout), (0, ""))


class Completion:
    """The tests for both shells. `offered(line)` returns what a tab after the line offers."""

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.folder / "bin").mkdir()
        (self.folder / "bin/pythons-friend").write_text("#!/bin/sh\n")
        (self.folder / "bin/pythons-friend").chmod(0o755)
        (self.folder / "data file").write_text("")
        self.environment = dict(os.environ, PATH=f"{self.folder}/bin:/usr/bin:/bin",
                                HOME=str(self.folder))

    def run_shell(self, *command):
        ran = subprocess.run(command, cwd=self.folder, env=self.environment, text=True,
                             stdin=subprocess.DEVNULL, capture_output=True)
        self.assertEqual((ran.returncode, ran.stderr), (0, ""), command)
        return ran.stdout.splitlines()

    # Python 3.10 does not have this method.
    def enterContext(self, context):
        self.addCleanup(context.__exit__, None, None, None)
        return context.__enter__()

    def assert_offers(self, line, *words):
        self.assertEqual(sorted(set(self.offered(line))), sorted(words), line)

    def assert_offers_among_others(self, line, *words):
        self.assertLessEqual(set(words), set(self.offered(line)), line)

    def test_options_are_those_of_the_help(self):
        self.assert_offers("forksafe --", *long_options_of(""))
        for form in SUBCOMMANDS:
            self.assert_offers(f"forksafe {form} --", *long_options_of(form))
            self.assert_offers_among_others(f"forksafe {form} -", *options_of(form))

    def test_an_option_begun(self):
        self.assert_offers("forksafe --po", "--pool")
        self.assert_offers("forksafe --off --po", "--pool")
        self.assert_offers("forksafe --pool keep --d", "--dry-run")
        self.assert_offers("forksafe --pool=keep --d", "--dry-run")
        self.assert_offers("forksafe check --timeout 5 --no", "--no-proof")

    def test_subcommands(self):
        self.assert_offers_among_others("forksafe ", *SUBCOMMANDS)
        self.assert_offers_among_others("forksafe li", "list")
        self.assert_offers_among_others("forksafe di", "diagnose")

    def test_subcommands_are_the_first_word_only(self):
        for front in ["--off", "--", "python3", "list --"]:
            self.assertNotIn("diagnose", self.offered(f"forksafe {front} diag"), front)

    def test_values(self):
        self.assert_offers("forksafe --pool ", "keep", "drop")
        self.assert_offers("forksafe --pool=", "keep", "drop")
        self.assert_offers("forksafe --pool=d", "drop")
        self.assert_offers("forksafe --child-threads ", "inherit", "auto")
        self.assert_offers("forksafe --child-threads in", "inherit")
        self.assert_offers("forksafe --wait-ms ")
        self.assert_offers("forksafe check --timeout ")
        self.assert_offers_among_others("forksafe diagnose --core da", "data file")
        self.assert_offers("forksafe --log std", "stderr")
        self.assert_offers_among_others("forksafe --log ", "stderr", "data file")

    def test_commands(self):
        for front in ["", "-- ", "--off ", "--pool keep ", "--pool=keep ", "--log x -- ",
                      "list -- ", "check --timeout 5 -- "]:
            self.assert_offers_among_others(f"forksafe {front}pythons", "pythons-friend")
            self.assertNotIn("data file", self.offered(f"forksafe {front}pythons"))

    def test_arguments_of_commands(self):
        known = {option for form in ["", *SUBCOMMANDS] for option in long_options_of(form)}
        for line in ["pythons-friend ", "-- pythons-friend ", "--off pythons-friend x ",
                     "list -- pythons-friend ", "check --json -- pythons-friend x "]:
            self.assert_offers_among_others(f"forksafe {line}", "data file")
        for line in ["python3", "-- python3", "list -- python3", "-- list", "pythons-friend"]:
            self.assertEqual(known & set(self.offered(f"forksafe {line} --")), set(),
                             line)

    def test_processes(self):
        process = self.enterContext(subprocess.Popen(["sleep", "100"]))
        self.addCleanup(process.kill)
        pid = str(process.pid)
        for line in ["list ", "check --json ", "diagnose ", f"diagnose --children {pid[:-1]}"]:
            self.assert_offers_among_others(f"forksafe {line}", pid)
        self.assertNotIn(pid, self.offered(f"forksafe diagnose {pid} "))
        self.assertNotIn("pythons-friend", self.offered("forksafe diagnose -- pythons"))


class Bash(Completion, unittest.TestCase):
    setting = "set -u"

    # COMP_WORDS as readline makes them: words are split at blanks and around an equals sign.
    script = """
        {setting}
        source "$1"
        COMP_LINE=$2 COMP_POINT=${{#2}} COMP_TYPE=9 COMP_KEY=9
        COMP_WORDS=("${{@:3}}")
        COMP_CWORD=$(($# - 3))
        compopt() {{ :; }}  # not in a real completion
        spec=$(complete -p forksafe)
        [[ $spec == *' -F '* ]] || exit 1
        spec=${{spec#* -F }}
        COMPREPLY=()
        ${{spec%% *}} forksafe "${{COMP_WORDS[-1]}}" "${{COMP_WORDS[-2]}}"
        [[ ${{#COMPREPLY[@]}} == 0 ]] || printf '%s\\n' "${{COMPREPLY[@]}}"
    """

    def offered(self, line):
        words = re.findall(r"[^\s=]+|=", line)
        if line.endswith(" "):
            words.append("")
        return self.run_shell("bash", "--norc", "-c", self.script.format(setting=self.setting),
                              "bash", COMPLETIONS / "forksafe.bash", line, *words)


class BashWithBashCompletion(Bash):
    setting = f"source {BASH_COMPLETION}"

    def test_the_completion_of_a_command(self):
        def ask(line):
            complete = "complete -W 'blue green' pythons-friend"
            self.setting = f"{type(self).setting}\n{complete}"
            self.assert_offers(line, "blue")

        ask("forksafe pythons-friend bl")
        ask("forksafe --pool=keep -- pythons-friend x bl")
        ask("forksafe list --json -- pythons-friend bl")

    def test_arguments_of_commands(self):
        # readline completes commands that bash-completion does not know.
        for line in ["python3", "-- python3", "list -- python3"]:
            self.assertNotIn("--dry-run", self.offered(f"forksafe {line} --"), line)
            self.assertNotIn("--json", self.offered(f"forksafe {line} --"), line)


class Zsh(Completion, unittest.TestCase):
    folders = [COMPLETIONS]

    @classmethod
    def setUpClass(cls):
        cls.dump = tempfile.NamedTemporaryFile()
        cls.addClassCleanup(cls.dump.close)

    def tab(self, line):
        """The completed line, and the words that were offered."""
        result = self.run_shell("zsh", "-f", HERE / "zsh_complete.zsh", line, self.dump.name,
                                *self.folders)
        return result[0], result[1:]

    def offered(self, line):
        return self.tab(line)[1]

    def test_a_tab_completes(self):
        self.assertEqual(self.tab("forksafe --po")[0], "forksafe --pool=")
        self.assertEqual(self.tab("forksafe diagn")[0], "forksafe diagnose ")
        self.assertEqual(self.tab("forksafe --pool k")[0], "forksafe --pool keep ")
        self.assertEqual(self.tab("forksafe pythons")[0], "forksafe pythons-friend ")

    def test_the_completion_of_a_command(self):
        (self.folder / "_pythons").write_text("#compdef pythons-friend\ncompadd blue green\n")
        self.folders = [self.folder, COMPLETIONS]
        for line in ["forksafe pythons-friend bl", "forksafe -- pythons-friend x bl",
                     "forksafe --off -- pythons-friend x bl",
                     "forksafe check -- pythons-friend bl"]:
            self.assert_offers(line, "blue")


# Each test, with the program that it needs.
TESTS = {
    "help": (Help, None),
    "man page": (ManPage, None),
    "lint": (Lint, "mandoc"),
    "bash": (Bash, "bash"),
    "bash-completion": (BashWithBashCompletion, BASH_COMPLETION),
    "zsh": (Zsh, "zsh"),
}

if __name__ == "__main__":
    tests, needed = TESTS[sys.argv[1]]
    if needed is not None and shutil.which(needed) is None and not os.path.exists(needed):
        print(f"{needed} is missing")
        sys.exit(77)
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(tests)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    sys.exit(0 if result.wasSuccessful() and result.testsRun > 0 else 1)
