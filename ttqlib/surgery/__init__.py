"""What is done to a model in place: compress it by a plan, turn its bonds, fuse it for running. Chapters 5, 6 and 9.

Of a language model in few bits: channels scaled, grids clipped, codes chosen on real inputs. Chapter 11.

And what is made of one: a smaller model of some of its layers, the first step of chapter 10.

It may import all that is above: plans, layers, quantizers.
"""
