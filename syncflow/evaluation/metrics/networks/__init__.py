"""Feature networks in the layouts of their published weights, which are given by path.

Sizes are read off the weights, so that a small network of the same layout loads the same way.
"""
