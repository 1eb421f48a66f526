"""Data: where it comes from, how it becomes batches, and how answers are scored. Chapters 7 and 8.

It imports no other room.
"""
