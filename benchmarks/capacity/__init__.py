"""The load that one replica can take, and the number of replicas that a fleet needs."""
