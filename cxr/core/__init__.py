"""Foundations of all other packages: errors, atomic file writing, paths, progress bars, tables, labels and parameters.

Imports no other package of the project.
"""
