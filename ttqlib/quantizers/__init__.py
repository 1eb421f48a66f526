"""Weights and activations in few bits: recipes, the modules they make, and how one comes to stand on a weight.

Chapter 4. It may import `tensors` and `inventory`.
"""
