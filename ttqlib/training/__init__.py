"""Training with quantizers, and distillation layer by layer: losses, what they match, when, and the trainer.

Chapters 7 and 8. It may import `storage`, for checkpoints, and `quantizers`.
"""
