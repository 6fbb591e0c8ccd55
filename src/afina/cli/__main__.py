"""`python -m afina.cli`: the same as the command `afina`."""

from __future__ import annotations

from afina.cli.main import main

if __name__ == "__main__":
    main()
