"""What makes sense in a stack and what does not: rules over its plain tables, each with the place and the reason."""
