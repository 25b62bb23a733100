"""This server beside the conventional design, bare `generate()`, an empty model, and other commits of itself."""
