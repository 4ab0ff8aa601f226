"""Speed and memory, side by side with what else one could use. RESULTS.md holds the figures."""
