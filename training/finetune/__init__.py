"""Fine-tunes a Florence-2 checkpoint on a folder of examples, and saves what the server loads."""

import os

# See `training.demo`: threads that spin while they wait make training ten times slower on a machine with other load.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
