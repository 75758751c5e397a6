"""Pages and servers that make clips."""
