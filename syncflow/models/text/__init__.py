"""What captions go through before and beside the text encoder."""
