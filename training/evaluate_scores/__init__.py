"""Measures how well scores are calibrated: `python -m training.evaluate_scores`; see docs/scores.md."""
