"""Checks of whether `dvc repro` can run on this machine: `python -m tools.doctor`."""
