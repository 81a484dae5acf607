"""The whole shop under load: what ``examples/demo.py`` starts, does to it, and reports."""
