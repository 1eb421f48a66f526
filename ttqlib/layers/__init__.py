"""Layers whose weight is a train, and layers of two thin matrices, into which trains are merged. Chapters 2 and 3.

It may import `tensors`, `inventory` and `quantizers`. No layer knows of quantization, a quantizer can be put on any
core; `together` does, which rounds the cores of a whole model in one pass.
"""
