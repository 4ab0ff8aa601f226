"""Inference with trained networks: test-time augmentation, ensemble probabilities and saliency maps.

Imports core and models.
"""
