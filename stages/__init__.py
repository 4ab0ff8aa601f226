"""The stages of the DVC pipeline, one script each: `python -m stages.NAME`."""
