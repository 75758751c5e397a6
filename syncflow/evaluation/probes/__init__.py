"""Small classifiers trained on the rendered world: what a clip sounds of and looks like."""
