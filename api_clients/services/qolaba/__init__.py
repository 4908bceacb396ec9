"""Qolaba ControlNet and Qolaba Image to Image."""
