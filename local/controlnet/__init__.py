"""Runs any number of ControlNets on one denoiser, each with its window, mask and strength."""
