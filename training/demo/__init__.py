"""Trains the demo checkpoint: a small Florence-2, from scratch, on scenes that the package draws itself."""

import os

# Torch's threads synchronize many times per step. Spinning meanwhile makes them ten times slower on a machine with any
# other load. This must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
