"""Data sets: the tables of NIH ChestX-ray14 and CheXpert, bounding boxes, and the stratified split by patient.

Imports core.
"""
