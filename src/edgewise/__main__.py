"""`python -m edgewise` is `edgewise`."""

import sys

from edgewise.serve.cli import main

sys.exit(main())
