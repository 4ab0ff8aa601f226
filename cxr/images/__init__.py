"""Image files: finding them in `raw_dir`, decoding and resizing.

Imports core.
"""
