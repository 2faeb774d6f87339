# SPDX-License-Identifier: Apache-2.0
"""Runs a file as a cell in the kernel "app" and prints what the cell prints: run_cell.py FILE"""
import sys
from pathlib import Path

from jupyter_client.manager import run_kernel

with run_kernel(kernel_name="app") as client:
    reply = client.execute_interactive(Path(sys.argv[1]).read_text(), allow_stdin=False)
if reply["content"]["status"] != "ok":
    sys.exit("the cell failed")
