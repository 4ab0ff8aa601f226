"""Plots, the HTML report, example images and published results.

Imports core, datasets, models, inference and evaluation.
"""
