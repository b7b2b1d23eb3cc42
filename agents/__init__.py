"""The real agents of gpt-oss against the real servers: `python -m agents`."""
