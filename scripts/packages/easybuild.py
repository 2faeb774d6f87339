# SPDX-License-Identifier: Apache-2.0
"""easybuild.sh runs this in a tree. It copies EASYCONFIG to FOLDER, and changes it so that it uses the
compiler and the packages of the system.

Each dependency gets an easyconfig that makes an empty module.
"""
import pathlib
import re
import sys

easyconfig, folder = pathlib.Path(sys.argv[1]).read_text(), pathlib.Path(sys.argv[2])
values = {"SOURCE_TAR_GZ": ""}
exec(easyconfig, values)
folder.mkdir()
for name, version in values["builddependencies"] + values["dependencies"]:
    (folder / f"{name}-{version}.eb").write_text(
        f"""easyblock = 'Toolchain'
name = '{name}'
version = '{version}'
homepage = 'https://www.debian.org'
description = 'stands for a package of Debian'
toolchain = SYSTEM
moduleclass = 'tools'
"""
    )
text = re.sub(r"^toolchain = .*", "toolchain = SYSTEM", easyconfig, flags=re.MULTILINE)
(folder / f"{values['name']}-{values['version']}.eb").write_text(text)
