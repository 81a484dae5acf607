"""A configuration file becomes a snapshot, or a list of everything that is wrong with it, each with its place."""
