"""How good a clip is: sync in milliseconds, prompt adherence, and the reports that show both.

One file per metric family. Detectors (``syncflow.detect``) read pixels and samples only, never the
renderer's truth; their settings live in ``detect/detectors.json`` and are fitted on validation
clips by ``syncflow evaluate fit``.
"""
