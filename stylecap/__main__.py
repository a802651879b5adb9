"""``python -m stylecap`` is the command ``stylecap``."""

import sys

from stylecap.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
