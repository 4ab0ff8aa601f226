"""Networks: the classifier, pretrained weights, model files, the image store, prediction, devices and processes.

Imports core.
"""
