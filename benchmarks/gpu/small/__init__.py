"""Trains the next generation of the shipped model on one GPU, by the clock.

    python -m benchmarks.gpu.small --minutes 4.5 --out FOLDER
    python -m benchmarks.gpu.small --join FOLDER --model MODEL_FOLDER

All cores render clips of impacts (levels 1 to 4) while the GPU trains: text encoder, video VAE,
audio VAE, then both towers of the d-DiT on latents that stay in the GPU's memory, last the video
decoder on latents as the tower makes them. Every step, its random draws and its optimizer included,
is one CUDA graph. The averaged weights are written every minute as at most three files, which
``--join`` makes a model folder of and ``--init`` goes on from.
"""
