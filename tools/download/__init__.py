"""The real data set: NIH's archives into a layout that the stages read, and DVC handles well."""
