"""A stand-in for the providers: it speaks their wire formats, fails on request and keeps a journal.

Inside a test, use `async with Simulator() as simulator`; as a process of its own,
`python -m tests.simulator`, steered over its `/_control` routes.
"""
