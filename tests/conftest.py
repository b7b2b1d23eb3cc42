"""Shared settings of the suite."""

from hypothesis import settings

# One machine's slow moment is no failure, and a failure repeats: the examples are the same each time.
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=200)
settings.load_profile("suite")
