"""Shared settings of the suite."""

import os

from hypothesis import settings

# One machine's slow moment is no failure, and a failure repeats: the examples are the same each time.
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=250)
# HYPOTHESIS_PROFILE=deep: other examples each time, and many of them.
settings.register_profile("deep", deadline=None, max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))
