"""What the engine knows of each ATen operator: one record for each family, and the only names of operators.

Modules by subject hold the rules, the rewriting of literals and the records; `table` finds the record of a node,
`build` has the operators that are put into graphs. A new operator is one record and one test:
tests/graph/test_toy_operator.py.
"""
