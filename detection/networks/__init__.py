"""The networks: GoogLeNet, other backbones that can stand in for it, and the reader of Caffe's weights."""
