"""What a person runs beside DVC, `python -m tools.NAME`."""
