"""Weights and activations in few bits: recipes, the modules they make, and how one comes to stand on a weight.

Chapters 4, 10 and 11. It may import `tensors` and `inventory`.
"""
