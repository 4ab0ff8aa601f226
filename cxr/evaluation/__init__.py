"""Metrics with confidence intervals, calibration, thresholds, subgroups, prevalence, experts and localisation.

Imports core, models and inference; `metrics` imports core only, since training uses it too.
"""
