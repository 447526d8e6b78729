"""A `Store` in memory: for tests, and the reference of what the contract means.

Every method runs without awaiting, so each is one atomic operation on the loop.
What is kept goes through the document mapping once, so that it has the precision
and the shape of what a server would give back.
"""
