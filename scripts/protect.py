"""Protect this repository by its own .github/rulesets, with the script that every project gets.

`python3 scripts/protect.py plan|apply|check`, as docs and workflows of projects say it.
"""

import sys
from pathlib import Path
from runpy import run_path

ROOT = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    script = run_path(str(ROOT / "template/scripts/protect.py"))
    script["main"].__globals__["PROJECT"] = ROOT
    sys.exit(script["main"]())
