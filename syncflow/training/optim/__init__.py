"""The optimizer and the average of the weights."""
