"""Training with quantizers, and distillation layer by layer: losses, what they match, when, and the trainer.

Chapters 7, 8 and 10. It may import `storage`, for checkpoints, and `quantizers`.
"""
