"""Films taken apart and put together, one fact per file; ``data.media`` is their front."""
