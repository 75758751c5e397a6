"""One file for each way to measure a model."""
