"""Configuration files: read, filled from the environment, decoded into structs, and every mistake told with its place."""
