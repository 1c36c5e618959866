"""``python -m dynpose``: the ``dynpose`` command."""

import sys

from .tools.cli import main

sys.exit(main())
