"""What a user may ask of time: that clips go on, and when things touch."""
