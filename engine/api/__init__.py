"""The engine for Python programs: Pool and Chain, steps, results, and frames.

Rules of this folder:
1. The same engine as the command line's underneath: worker processes, limiter, store. Nothing is decided twice.
2. Whoever uses it sees values and results; messages, records and jobs stay inside.
"""
