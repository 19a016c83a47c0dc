"""A stand-in for the providers: it speaks their wire formats, fails on request and keeps a journal.

Inside a test it is `async with Simulator() as simulator`; beside other processes it is
`python -m tests.simulator`, steered over its `/_control` routes.
"""
