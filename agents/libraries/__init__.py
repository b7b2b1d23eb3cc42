"""The libraries that agents are written with, against the real servers: `python -m agents.libraries`."""
