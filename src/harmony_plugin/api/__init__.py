"""The three APIs for any server: typed requests out of what clients send, replies written down from the core's events.

Knows no server and no engine.
"""
