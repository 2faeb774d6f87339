# SPDX-License-Identifier: Apache-2.0
# For Spack 1.0 and later, as packages/forksafe/package.py of a repository.
# `sh scripts/packages.sh spack` installs by it, with a stand-in for Spack (scripts/packages/spack.py) and with
# Debian's packages in place of the dependencies. Not tried: Spack itself, so what it makes of the directives
# (dependencies, variant, requires) and its compiler wrapper.
#
# forksafe.invalid stands for the project's address, which is not known yet, and the sum of zeros for that of
# the archive.
from spack_repo.builtin.build_systems.meson import MesonPackage

from spack.package import *


class Forksafe(MesonPackage):
    """Makes fork safe in programs with BLAS or OpenMP thread pools: a library to preload, and a command
    that runs programs with it and says why a process is stuck."""

    homepage = "https://forksafe.invalid"
    url = "https://forksafe.invalid/releases/forksafe-0.1.0.tar.gz"

    license("Apache-2.0")

    version("0.1.0", sha256="0000000000000000000000000000000000000000000000000000000000000000")

    variant(
        "preload",
        default=False,
        description="Preload the library into all programs where the package is loaded",
    )

    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("meson@1.0:", type="build")
    depends_on("cli11", type="build")
    depends_on("nlohmann-json", type="build")
    depends_on("fmt")
    depends_on("libunwind components=ptrace")

    requires("platform=linux", msg="forksafe needs Linux with glibc")

    def meson_args(self):
        return ["-Dtests=false"]

    def setup_run_environment(self, env):
        if self.spec.satisfies("+preload"):
            library = join_path(self.prefix.lib, "forksafe", "libforksafe.so")
            env.prepend_path("LD_PRELOAD", library)
            env.set("KMP_INIT_AT_FORK", "TRUE")

    def test_command(self):
        """the command finds its library and runs a program"""
        forksafe = which(self.prefix.bin.forksafe)
        library = forksafe("--print-library", output=str).strip()
        assert library == join_path(self.prefix.lib, "forksafe", "libforksafe.so")
        forksafe("true")
