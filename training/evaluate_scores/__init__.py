"""Measures how far scores mean what they say: `python -m training.evaluate_scores`; see docs/scores.md."""
