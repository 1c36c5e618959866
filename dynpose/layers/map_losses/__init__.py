"""Losses over whole heatmaps that never store more than the heatmaps themselves."""

from .operator import expected_distance, upsampled_cross_entropy

__all__ = ["expected_distance", "upsampled_cross_entropy"]
