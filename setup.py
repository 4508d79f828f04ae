"""The part of the build that pyproject.toml cannot express: the list of packages, and a build without stale modules."""

import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

PACKAGE = "inception_rcnn"  # the package is the root of the repository
FOLDERS = ["data", "detection", "proposals", "runtime", "tools"]


class CleanBuild(build_py):
    """Copies the package and nothing else into the wheel.

    setuptools packs whatever is in `build/lib` and `build/bdist.<platform>`: it does not empty the first, and an
    interrupted build leaves files in the second. So both are emptied before a build.
    """

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
            shutil.rmtree(self.get_finalized_command("bdist").bdist_base, ignore_errors=True)
        super().run()

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Leaves out this file, which is in the folder of the package but no module of it."""
        modules = super().find_package_modules(package, package_dir)
        return [module for module in modules if module[:2] != (PACKAGE, "setup")]


folders = find_packages(include=[pattern for folder in FOLDERS for pattern in (folder, f"{folder}.*")])
setup(packages=[PACKAGE, *(f"{PACKAGE}.{folder}" for folder in folders)], cmdclass={"build_py": CleanBuild})
