# SPDX-License-Identifier: Apache-2.0
"""sbom.py WHEEL LINKED FOLDER: copies a wheel into FOLDER, with a list of what is linked into its command.

The list is .dist-info/sboms/forksafe.cdx.json (PEP 770, CycloneDX). LINKED has a line for each component:
NAME|VERSION|LICENSE|SOURCE-PACKAGE SOURCE-VERSION, the last as Debian knows it.
"""
import base64
import hashlib
import json
import os
import sys
import time
import zipfile
from pathlib import Path

wheel, linked, folder = map(Path, sys.argv[1:])
name, version = wheel.name.split("-")[:2]
info = f"{name}-{version}.dist-info"


def component(line):
    library, its_version, license_, source = line.split("|")
    package, package_version = source.split(" ")
    return {"type": "library", "name": library, "version": its_version,
            "licenses": [{"expression": license_}],
            "purl": f"pkg:deb/debian/{package}@{package_version.replace('+', '%2B')}?arch=source"}


sbom = json.dumps({
    "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
    "metadata": {"component": {"type": "application", "name": name, "version": version,
                               "licenses": [{"expression": "Apache-2.0"}],
                               "purl": f"pkg:pypi/{name}@{version}"}},
    "components": [component(line) for line in linked.read_text().splitlines()],
}, indent=1).encode() + b"\n"
digest = base64.urlsafe_b64encode(hashlib.sha256(sbom).digest()).decode().rstrip("=")
path = f"{info}/sboms/{name}.cdx.json"

folder.mkdir(parents=True, exist_ok=True)
with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(folder / wheel.name, "w", zipfile.ZIP_DEFLATED) as new:
    for member in old.infolist():
        data = old.read(member)
        if member.filename == f"{info}/RECORD":
            data = f"{path},sha256={digest},{len(sbom)}\n".encode() + data
            added = zipfile.ZipInfo(path, time.gmtime(int(os.environ["SOURCE_DATE_EPOCH"]))[:6])
            added.external_attr, added.compress_type = 0o100644 << 16, zipfile.ZIP_DEFLATED
            new.writestr(added, sbom)
        new.writestr(member, data)
