"""What may ship: gates, verdicts, the choice among files, releases, and many boards at once.

Rests on core.measuring.
"""
