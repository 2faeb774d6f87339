# SPDX-License-Identifier: Apache-2.0
"""layers_test.py SHIM: which file of the library may include which.

A file includes its own layer and those below it. No two files include each other, not even by way
of others; a header and the source file of the same name count as one.
"""
import pathlib
import re
import sys
import unittest

SHIM = pathlib.Path(sys.argv[1])

# From the lowest to the highest. A folder stands for all files in it.
LAYERS = [
    ["descriptor", "keep_errno", "number", "pages", "state"],
    ["futex"],
    ["lease", "signals"],
    ["report"],
    ["options"],
    ["elf", "sharing"],
    ["doors"],
    ["runtimes"],
    ["first_fork", "fork_handlers", "registrations"],
    ["preload"],
]


def layer_of(unit):
    first = unit.split("/")[0]
    return next(i for i, layer in enumerate(LAYERS) if first in layer)


def read_includes():
    """For each unit ("doors/gate") the units that it includes."""
    includes = {}
    for path in sorted(SHIM.rglob("*")):
        if path.suffix in (".h", ".cpp", ".def"):
            unit = path.relative_to(SHIM).with_suffix("").as_posix()
            names = re.findall(r'^\s*#include "(.+)\.\w+"', path.read_text(), re.MULTILINE)
            includes.setdefault(unit, set()).update(name for name in names if name != unit)
    return includes


INCLUDES = read_includes()


class Layers(unittest.TestCase):
    def test_every_file_has_a_layer(self):
        self.assertGreater(len(INCLUDES), 20)
        for unit in INCLUDES:
            with self.subTest(unit):
                layer_of(unit)

    def test_no_file_includes_a_higher_layer(self):
        for unit, included in INCLUDES.items():
            for other in included:
                with self.subTest(f"{unit} includes {other}"):
                    self.assertIn(other, INCLUDES)
                    self.assertLessEqual(layer_of(other), layer_of(unit))

    def test_no_files_include_each_other(self):
        left = dict(INCLUDES)
        while True:
            lowest = [unit for unit, included in left.items() if not included & left.keys()]
            if not lowest:
                break
            for unit in lowest:
                del left[unit]
        self.assertEqual(sorted(left), [], "these include each other, or one that does")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
