"""Boxes, picture files, class lists, annotations, data sets and files of detections."""
