"""What boards and phones say of themselves: parsers and judgements without any connection.

Knows nothing of what is measured there.
"""
