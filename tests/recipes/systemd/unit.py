# SPDX-License-Identifier: Apache-2.0
"""Starts a service as systemd would: with the Environment= and ExecStart= of the unit and its drop-ins.

    unit.py UNIT

That needs no running systemd, but `systemd-analyze verify` must find nothing wrong with the unit.
"""
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path


def settings(unit):
    """Returns the settings of the section Service as a list of pairs, in systemd's order."""
    found = []
    for file in [unit, *sorted(Path(f"{unit}.d").glob("*.conf"))]:
        section = ""
        text = re.sub(r"\\\n", " ", file.read_text())
        for line in map(str.strip, text.splitlines()):
            if line.startswith("["):
                section = line
            elif line and line[0] not in "#;" and section == "[Service]":
                name, _, value = line.partition("=")
                found.append((name, value.strip()))
    return found


def main(name):
    unit = Path(name).absolute()
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True,
                              text=True, check=False)
    if verified.returncode != 0 or name in verified.stderr:
        sys.exit(f"systemd-analyze verify: status {verified.returncode}: {verified.stderr}")
    environment = dict(os.environ)
    command = None
    for key, value in settings(unit):
        if key == "Environment":
            environment.update(word.split("=", 1) for word in shlex.split(value))
        elif key == "WorkingDirectory":
            os.chdir(value)
        elif key == "ExecStart":
            command = shlex.split(value)
    os.execve(command[0], command, environment)


if __name__ == "__main__":
    main(*sys.argv[1:])
