"""The public suites, through everything: the core, the servers, and what others have. See `python -m conformance`."""
