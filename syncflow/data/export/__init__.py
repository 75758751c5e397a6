"""Clips as files of every kind that a name can ask for."""
