"""Warping: crop regions of a picture and resize the crops to the network's input, on the CPU or on a GPU."""
