"""How well methods segment, and how fast: metrics, long runs with a run log, reports, timing.

`mini` measures the bundled model on emoji scenes, `runner` any method on any data set.
"""
