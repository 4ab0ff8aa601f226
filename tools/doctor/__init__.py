"""Whether `dvc repro` could run here, and what to do where it could not: `python -m tools.doctor`."""
