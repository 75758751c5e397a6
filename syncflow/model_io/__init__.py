"""Models on disk and on the hub: folders, cards, and the cache of encoded prompts."""
