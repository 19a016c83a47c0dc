"""`python -m app …`. The process that answers is started without the command line's weight."""

import gc
import shlex
import sys

# Modules stay: to look for garbage among them is a third of the time of a short command.
gc.disable()

if sys.argv[1:] == ["serve"]:
    from app.cli.serve import main

    main()
else:
    try:
        from app.cli.main import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "app":
            raise
        words = shlex.join(sys.argv[1:])
        sys.exit(f"This Python has no {error.name}. Run: .venv/bin/python -m app {words}".rstrip())

    gc.freeze()
    gc.enable()
    app(prog_name="python -m app")
