"""Training over many processes; the only room that imports deepspeed."""
