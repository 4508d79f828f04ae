"""Boxes, pictures, class lists and data sets: what every other folder builds on."""
