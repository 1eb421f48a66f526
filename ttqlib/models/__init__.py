"""Models that come with the chapters: intent and slots, the packaged MiniLM and SmolLM2. Chapters 0, 7, 8, 11.

It may import `tasks`.
"""
