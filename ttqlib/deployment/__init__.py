"""A finished model out of PyTorch: the ONNX graph, and the `Predictor` that runs it without torch. Chapter 9.

It may import `surgery` and `storage`; `predictor` itself imports nothing that needs torch.
"""
