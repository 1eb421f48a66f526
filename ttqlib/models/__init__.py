"""Models that come with the chapters: intent and slots, and the packaged MiniLM. Chapters 0, 7 and 8.

It may import `tasks`.
"""
