"""Which layer gets which format and how many bits: plans, as objects and as JSON, and the one line that makes one.

Chapter 6. It may import what a plan speaks of: `tensors`, `inventory`, `quantizers`.
"""
