"""Code that the stages and tools share, in packages: see docs/architecture.md."""
