"""What trained networks say of a person's own images."""
