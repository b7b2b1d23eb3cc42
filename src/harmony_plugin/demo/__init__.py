"""The embedded demo: a tiny model, scripted sampling, and a run of the real server with a real client.

Nothing else in the package imports this.
"""
