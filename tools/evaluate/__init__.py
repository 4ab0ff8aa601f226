"""Evaluation of predictions and networks from anywhere on data that were not used for training."""
