"""Which rank and how many bits each layer gets, so that a model fits a budget and loses least. Chapter 12.

It may import what a plan speaks of, `surgery`, which makes what a plan says, and `storage` and `measures`, which weigh.
"""
