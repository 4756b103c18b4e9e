"""What was measured, under which conditions, with which spread, and whether it may be believed.

Knows nothing of plans or gates.
"""
