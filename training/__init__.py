"""Makes the demo checkpoint: a small Florence-2 trained from scratch on scenes the package draws itself."""

import os

# Torch's threads wait for one another many times a step. Spinning while they wait costs a factor of ten on a machine
# that runs anything else; this has to be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
