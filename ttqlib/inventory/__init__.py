"""What a model is made of: which modules are linear layers, tables or experts, and which weights are one. Chapter 6.

It imports no other room. All that tells one family of models from another stands here, known by class, not by name.
"""
