# SPDX-License-Identifier: Apache-2.0
"""conda.sh runs this in a tree, as conda.py STEP: render, build, test or install.

rattler-build builds the recipe in a prefix whose name has 255 characters. It notes the files that contain
the name. rattler replaces it there when it installs, as conda does.
"""
import asyncio
import pathlib
import re
import shutil
import sys

import rattler
import rattler_build

recipe = pathlib.Path("/artefacts/conda/recipe.yaml")
channel = pathlib.Path("channel").absolute()


def render():
    variants = {"c_compiler": ["gcc"], "cxx_compiler": ["gxx"], "c_stdlib": ["sysroot"]}
    for variant in rattler_build.Stage0Recipe.from_file(recipe).render(
        rattler_build.VariantConfig(variants)
    ):
        print(variant)


def build():
    """Builds without the requirements: conda-forge is out of reach, so Debian's packages are used."""
    work = pathlib.Path("recipe").absolute()
    for folder in work, channel:
        shutil.rmtree(folder, ignore_errors=True)
    work.mkdir()
    shutil.copy(recipe.parent / "build.sh", work)
    text = recipe.read_text()
    text = re.sub(r"^requirements:\n(?: .*\n|\n)*", "", text, flags=re.MULTILINE)
    [address] = re.findall(r"https://.*/(?=[^/]*\.tar\.gz)", text)
    (work / "recipe.yaml").write_text(text.replace(address, "file:///artefacts/sources/"))
    [variant] = rattler_build.Stage0Recipe.from_file(work / "recipe.yaml").render()
    result = variant.run_build(output_dir=channel, channels=[])
    print("\n".join(result.log))
    print(*result.packages)


def built():
    [package] = channel.glob("linux-*/*.conda")
    return package


def test():
    results = rattler_build.Package.from_file(built()).run_tests(channel=[str(channel)])
    for result in results:
        print(result, *result.output, sep="\n")
    if not results or not all(result.success for result in results):
        sys.exit("a test failed")


def install():
    async def install_package():
        platform = rattler.Platform(built().parent.name)
        records = await rattler.solve([channel.as_uri()], ["forksafe"], platforms=[platform, "noarch"])
        await rattler.install(records, "env", platform=platform)

    shutil.rmtree("env", ignore_errors=True)
    asyncio.run(install_package())


{"render": render, "build": build, "test": test, "install": install}[sys.argv[1]]()
