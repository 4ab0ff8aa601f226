"""Networks: classifier, pretrained weights, model files, image store, prediction, devices, distributed training.

Imports core.
"""
