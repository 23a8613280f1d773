"""``python -m firmware_sim``."""

import sys

from firmware_sim.run import main

sys.exit(main())
