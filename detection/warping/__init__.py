"""Warping: regions of a picture -> crops of the network's input size, on the CPU and on a GPU."""
