"""What batches are drawn from: crops of clips, and latents in buckets of one size each."""
