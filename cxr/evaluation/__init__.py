"""Metrics with confidence intervals, calibration, thresholds, subgroups, localisation and near-duplicates.

Imports core, models and inference; `metrics` imports core only, since training uses it too.
"""
