"""What DVC runs: one plain script a stage, `python -m stages.NAME`."""
