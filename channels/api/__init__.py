"""The `api` kind: clients that bring their own channel hand us messages, and read ours from the stream."""
