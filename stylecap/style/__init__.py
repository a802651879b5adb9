"""Painting one picture in the manner of another, by optimisation."""
