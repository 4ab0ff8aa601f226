"""Training of one network: data, epochs, augmentation, losses, parameter groups, learning rate, checkpoints.

Imports core, models, and the module evaluation.metrics.
"""
