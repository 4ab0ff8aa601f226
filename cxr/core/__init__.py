"""What every other package uses: errors, atomic files, paths, progress bars, tables, labels, and reading params.yaml.

Imports no other package of the project.
"""
