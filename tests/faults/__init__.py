"""Break one thing at a time under load, and count: `python -m tests.faults` makes the table of `docs/reliability.md`.

A run is a *world* (a hub, its home, what it needs), a *load* of well-behaved customers, agents and a provider, and one
*fault*. What everybody saw goes into the *record*; the *evidence* compares it with what the hub itself says it holds.
"""
