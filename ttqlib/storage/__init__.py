"""Finished models on disk, to the bit: bits, files, folders, and the door of `from_pretrained`. Chapter 5.

It may import all that is above; `surgery`, since loading compresses a model anew before it fills in what is stored.
"""
