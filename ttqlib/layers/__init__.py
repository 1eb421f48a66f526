"""Layers whose weight is a train, and layers of two thin matrices, into which trains are merged. Chapters 2 and 3.

It may import `tensors` and `inventory`, and knows nothing of quantization: a quantizer can be put on any core.
"""
