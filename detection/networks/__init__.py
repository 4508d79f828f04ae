"""The networks that classify regions: GoogLeNet, torchvision's GoogLeNet, and the reader of Caffe's weights."""
