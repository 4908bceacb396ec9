"""What changes the denoiser for a request: IP-Adapters and LoRAs."""
