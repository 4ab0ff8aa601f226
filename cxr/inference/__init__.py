"""From trained networks to probabilities and saliency maps: test-time augmentation and the ensemble.

Imports core and models.
"""
