# SPDX-License-Identifier: Apache-2.0
"""page_test.py PAGE FILE: the C++ that the page shows is the file's, all of it and in its order."""
import pathlib
import re
import sys

page, source = (pathlib.Path(path).read_text() for path in sys.argv[1:3])
blocks = re.findall(r"^```cpp\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
rest = source
for block in blocks:
    before, found, rest = rest.partition(block)
    if not found:
        sys.exit(f"not in the file, or not at this place:\n{block}")
    if re.search(r"^[^/\n]", before, re.MULTILINE):
        sys.exit(f"the page leaves this out:\n{before}")
if not blocks or rest.strip():
    sys.exit(f"the page leaves this out:\n{rest}")
