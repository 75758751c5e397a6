"""How good a clip is: sync in milliseconds, prompt adherence, and the reports that show both.

One file per metric family. Detectors read pixels and samples only, never the renderer's truth;
their settings live in ``detectors.json`` and are fitted on validation clips by
``python -m syncflow.evaluation.fit``.
"""
