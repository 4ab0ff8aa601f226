"""Metrics, confidence intervals, calibration, thresholds, subgroups, localisation, near-duplicates, and their summary.

Imports core, models and inference; `metrics` imports core only, since training uses it too.
"""
