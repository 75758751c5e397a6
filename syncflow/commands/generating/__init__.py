"""What ``generate`` shows beside the clips that it makes."""
