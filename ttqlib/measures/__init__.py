"""What a model has and takes: parameters, bytes, FLOPs, time and memory. All chapters.

It may import `storage`, which alone knows the bytes of a file.
"""
