"""Scenario controlnet-ip-adapter."""
