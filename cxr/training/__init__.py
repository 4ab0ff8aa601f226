"""Training of one network: epochs, augmentation, losses, parameter groups, learning rate, checkpoints.

Imports core, models, and of evaluation the module metrics.
"""
