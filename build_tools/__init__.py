"""The in-tree build backend: how `syncflow._C`, the compiled operators, comes about.

`backend` is what pip calls, `operators` compiles and keeps the record, `pytorch` finds the PyTorch
of run time, `toolchain` and `cuda` the compilers, `ninja_file` writes the build. Everything here
runs on the standard library and setuptools alone: machines without pip call it through
`python setup.py operators`.
"""
