"""Engines: the same forward pass on OpenVINO, on torch's CPU and on CUDA, compiled once and cached on disk."""
