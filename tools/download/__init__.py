"""Download of NIH ChestX-ray14, or import of existing files, into a layout that the stages read."""
