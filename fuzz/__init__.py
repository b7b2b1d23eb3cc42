"""Fuzzing of the core: what nobody thought of. See README.md beside this file; run `python -m fuzz --help`."""
