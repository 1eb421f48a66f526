"""A finished model out of PyTorch: the ONNX graph, and the `Predictor` that runs it without torch. Chapters 9 and 11.

A decoder that is to go on with a text has a graph of its own, in its own few bits, and a `Talker` that runs it.
It may import `surgery` and `storage`; `predictor` and `talker` themselves import nothing that needs torch.
"""
