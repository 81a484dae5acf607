"""HTTP as values and as a wire."""
