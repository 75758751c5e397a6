"""The sub-commands, one module each: SUMMARY, EXAMPLE, ``add_arguments(parser)`` and ``run(args)``.

Their modules import only what parsing needs; ``run`` imports the rest.
"""
