"""Data: where it comes from, how it becomes batches, and how answers are scored. Chapters 7 and 8.

Of the other rooms it knows one function, which checks whole numbers.
"""
