"""What a person is told of a prompt, and shown of the sync of a clip."""
