# SPDX-License-Identifier: Apache-2.0
"""spack.sh runs this in a tree: installs by packaging/spack/package.py, in PREFIX, from SOURCES.

Neither Debian nor PyPI has Spack, so this file has a stand-in for each part of Spack that the package uses.
It notes and prints the directives, and gives meson the options that Spack's MesonPackage gives. At the end
it writes the environment of `spack load forksafe+preload` to PREFIX/load.sh.
"""
import pathlib
import subprocess
import sys
import types

recipe, sources, prefix = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]


class Prefix(str):
    """prefix.bin.forksafe is the path prefix/bin/forksafe."""

    def __getattr__(self, name):
        return Prefix(f"{self}/{name}")


class Spec:
    def __init__(self, variants):
        self.variants = variants

    def satisfies(self, constraint):
        return constraint in self.variants


class MesonPackage:
    def __init__(self, variants):
        self.spec = Spec(variants)
        self.prefix = Prefix(prefix)


class Environment:
    def __init__(self):
        self.lines = []

    def prepend_path(self, name, value):
        self.lines.append(f'export {name}="{value}${{{name}:+:${name}}}"')

    def set(self, name, value):
        self.lines.append(f'export {name}="{value}"')


def which(path):
    def run(*arguments, output=None):
        return subprocess.run([path, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout

    return run


def directive(name):
    return lambda *arguments, **options: print(f"{name}: {arguments} {options}")


def module(name, **members):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(members)


directives = "license", "version", "variant", "depends_on", "requires"
module(
    "spack.package",
    join_path=lambda *parts: "/".join(parts),
    which=which,
    **{name: directive(name) for name in directives},
)
for package in "spack", "spack_repo", "spack_repo.builtin", "spack_repo.builtin.build_systems":
    module(package)
module("spack_repo.builtin.build_systems.meson", MesonPackage=MesonPackage)

names = {}
exec(compile(pathlib.Path(recipe).read_text(), recipe, "exec"), names)
package = names["Forksafe"]({"+preload"})

build = sources / "spack-build"
# As MesonPackage does, with an absolute libdir.
options = [
    f"-Dprefix={prefix}",
    f"-Dlibdir={prefix}/lib",
    "-Dbuildtype=release",
    "-Dstrip=false",
    "-Ddefault_library=shared",
    "-Dwrap_mode=nodownload",
]
subprocess.run(["meson", "setup", sources, build, *options, *package.meson_args()], check=True)
subprocess.run(["ninja", "-C", build], check=True)
subprocess.run(["ninja", "-C", build, "install"], check=True)
package.test_command()
environment = Environment()
package.setup_run_environment(environment)
pathlib.Path(prefix, "load.sh").write_text("\n".join(environment.lines) + "\n")
