"""What training minimises, and what judges it."""
