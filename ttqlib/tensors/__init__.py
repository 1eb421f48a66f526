"""Tensor trains themselves: shapes, cores, and what can be done with them. Chapters 1, 2 and 5.

It imports no other room, and knows nothing of layers.
"""
