"""What pyproject.toml cannot say of the build: the list of packages, and that a wheel never holds stale modules."""

import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

PACKAGE = "inception_rcnn"  # the repository's root
FOLDERS = ["data", "detection", "proposals", "runtime", "tools"]


class CleanBuild(build_py):
    """`build_py` that starts from an empty folder: a module that was moved or deleted stays out of the wheel."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


folders = find_packages(include=[pattern for folder in FOLDERS for pattern in (folder, f"{folder}.*")])
setup(packages=[PACKAGE, *(f"{PACKAGE}.{folder}" for folder in folders)], cmdclass={"build_py": CleanBuild})
