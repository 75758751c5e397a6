"""From a prompt to a clip: the request, the noise, the sampler, the pipeline and ranking."""
