# SPDX-License-Identifier: Apache-2.0
"""docs_test.py SOURCE: checks that each example in docs/recipes.md that names a file is a part of that
file, and that docs/recipes.md has an example from each recipe that is tested."""
import re
import sys
import unittest
from pathlib import Path

SOURCE = Path(sys.argv.pop(1))
TEXT = (SOURCE / "docs/recipes.md").read_text()
BLOCKS = re.findall(r"^```\w+ (tests/recipes/\S+)\n(.*?)^```$", TEXT, re.M | re.S)


class Examples(unittest.TestCase):
    def test_each_is_a_part_of_its_file(self):
        self.assertGreater(len(BLOCKS), 3)
        for name, lines in BLOCKS:
            with self.subTest(name):
                self.assertIn(lines, (SOURCE / name).read_text())

    def test_each_names_forksafe(self):
        for name, lines in BLOCKS:
            with self.subTest(name):
                self.assertIn("/forksafe", lines)

    def test_each_folder_of_recipes_is_explained(self):
        folders = {path.name for path in (SOURCE / "tests/recipes").iterdir() if path.is_dir()}
        self.assertEqual(folders - {"__pycache__"}, {name.split("/")[2] for name, _ in BLOCKS})


if __name__ == "__main__":
    unittest.main()
