"""Cocolu Hub's domain: ids, commands, events, state, errors and the ports that hold them.

Nothing here knows of HTTP, of Ray or of any provider. Everything to the right of this package
(`channels`, `actors`, `api`) may import it; it imports none of them.
"""

__version__ = "0.1.0"
