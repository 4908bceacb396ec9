"""IP-Adapters and LoRAs, which change the denoiser for one request."""
