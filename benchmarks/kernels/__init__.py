"""Single stages beside their alternatives: encoding, decode step, loading, image preparation."""
