# SPDX-License-Identifier: Apache-2.0
"""version.py [VERSION]: the version of this project, which several files must name.

Without an argument, it checks that all of them name the version in meson.build, and prints it. With an
argument, it writes that version, and today's date, into all of them. Exit status 1: a file names
another version, or the place is not found.
"""
import datetime
import email.utils
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# A file, and the pattern of the place that names the version; the pattern matches what is replaced.
PLACES = [
    ("meson.build", r"(?<=  version: ')[^']+"),
    ("CITATION.cff", r"(?<=^version: ).+"),
    ("packaging/debian/changelog", r"(?<=\Aforksafe \()[^-)]+"),
    ("packaging/rpm/forksafe.spec", r"(?<=^Version:        ).+"),
    ("packaging/arch/PKGBUILD", r"(?<=^pkgver=).+"),
    ("packaging/conda/recipe.yaml", r'(?<=^  version: ").+(?="$)'),
    ("packaging/spack/package.py", r'(?<=^    version\(")[^"]+'),
    ("packaging/easybuild/forksafe.eb", r"(?<=^version = ').+(?='$)"),
]


def found_in(name, pattern):
    match = re.search(pattern, (ROOT / name).read_text(), re.MULTILINE)
    return match[0] if match else None


def replace(name, pattern, text):
    file = ROOT / name
    changed, count = re.subn(pattern, text, file.read_text(), count=1, flags=re.MULTILINE)
    if count != 1:
        sys.exit(f"version.py: {name}: nothing matches {pattern}")
    file.write_text(changed)


def check():
    version = found_in(*PLACES[0])
    wrong = [f"version.py: {name} says {found}, and meson.build {version}"
             for name, pattern in PLACES if (found := found_in(name, pattern)) != version]
    if wrong:
        sys.exit("\n".join(wrong))
    print(version)


def write(version):
    now = datetime.datetime.now(datetime.timezone.utc)
    for name, pattern in PLACES:
        replace(name, pattern, version)
    replace("NEWS.md", rf"^## {re.escape(version)} \(not released yet\)$",
            f"## {version} ({now:%Y-%m-%d})")
    citation = (ROOT / "CITATION.cff").read_text()
    citation = re.sub(r"^date-released: .*\n", "", citation, flags=re.MULTILINE)
    (ROOT / "CITATION.cff").write_text(
        re.sub(r"^(version: .*\n)", rf"\1date-released: {now:%Y-%m-%d}\n", citation, flags=re.MULTILINE))
    for page in ["cli/forksafe.1", "shim/libforksafe.7"]:
        replace(page, r"^\.Dd .*", f".Dd {now:%B} {now.day}, {now:%Y}")
    replace("packaging/rpm/forksafe.spec", r"(?<=^\* )\w{3} \w{3} \d\d \d{4}(?= The forksafe authors)",
            f"{now:%a %b %d %Y}")
    replace("packaging/rpm/forksafe.spec", r"(?<= - )[0-9.]+(?=-1$)", version)
    replace("packaging/debian/changelog", r"UNRELEASED(?=;)", "unstable")
    replace("packaging/debian/changelog", r"(?<=>  ).*", email.utils.format_datetime(now))


if len(sys.argv) == 1:
    check()
else:
    write(sys.argv[1])
