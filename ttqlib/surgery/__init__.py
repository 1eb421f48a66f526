"""What is done to a model in place: compress it by a plan, turn its bonds, fuse it for running. Chapters 5, 6 and 9.

It may import all that is above: plans, layers, quantizers.
"""
