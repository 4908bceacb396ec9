"""Skeletons of bodies, hands and faces: their detectors and how they are drawn."""
