"""What the stages and tools share: tables, pixels, batches, networks, measures."""
