#!/usr/bin/env python3
"""Everything a developer or a user starts: install, run, serve, demo, test. `python3 scripts/dev.py --help` lists it.

Needs nothing but Python; what the product needs is installed into .venv and .venv-ls. This file stays readable for old
Pythons, so that they get a sentence and not a syntax error. The work is in tamdev/.
"""

import sys

OLDEST, NEWEST = (3, 11), (3, 12)

if __name__ == "__main__":
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        sys.exit(
            "This needs Python %d.%d to %d.%d, and %s is %s. Install one of those, then: make PYTHON=python3.11 ..."
            % (OLDEST + NEWEST + (sys.executable, sys.version.split()[0]))
        )
    from tamdev.main import main

    sys.exit(main())
