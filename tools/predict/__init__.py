"""Predictions of the trained networks for image files."""
