"""`python -m app …`. The process that answers is started without the command line's weight."""

import sys

if sys.argv[1:] == ["serve"]:
    from app.serve import main

    main()
else:
    from app.cli import app

    app(prog_name="python -m app")
