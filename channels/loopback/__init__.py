"""The built-in provider of demo mode: speaks the real wire protocol, over a real socket, to ourselves."""
