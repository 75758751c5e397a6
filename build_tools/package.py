"""The Python files of the package, and what an installed package needs besides."""

import shutil
from pathlib import Path

from setuptools.command.build_py import build_py

from build_tools.operators import ROOT


class BuildPackage(build_py):
    """Puts configs/ into a wheel, as `syncflow/configs`: a clone has them beside the package."""

    def run(self) -> None:
        """The configs go into the wheel beside the modules."""
        super().run()
        if not getattr(self, "editable_mode", False):
            package = Path(self.build_lib) / "syncflow" / "configs"
            shutil.copytree(ROOT / "configs", package, dirs_exist_ok=True)
