"""The drill: the service and what it stands on are started, abused, and looked at.

`make drill` shows for each promise what is expected and what was seen. It has servers, users,
models and plans of its own, and ends every process that it started.
"""
