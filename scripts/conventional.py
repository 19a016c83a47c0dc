"""Check a commit message or a title, with the script that every project gets."""

from pathlib import Path
from runpy import run_path

if __name__ == "__main__":
    script = Path(__file__).resolve().parent.parent / "template/scripts/conventional.py"
    run_path(str(script), run_name="__main__")
