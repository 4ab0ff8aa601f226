"""What people look at: plots, the HTML report, example images, published results.

Imports core, datasets, models, inference and evaluation.
"""
