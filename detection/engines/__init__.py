"""Engines: the forward pass of a network on OpenVINO, torch or CUDA, compiled once and cached on disk."""
