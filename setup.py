"""Builds `syncflow._C`: how is in build_tools/, all else about the package in pyproject.toml.

`python setup.py operators` compiles in place with setuptools alone: no pip, no package metadata,
which older setuptools cannot read.
"""

import sys

from setuptools import Extension, setup

from build_tools import operators, package

if sys.argv[1:] == ["operators"]:
    sys.exit(operators.main())
setup(
    ext_modules=[Extension("syncflow._C", [])],
    cmdclass={"build_ext": operators.BuildOperators, "build_py": package.BuildPackage},
)
