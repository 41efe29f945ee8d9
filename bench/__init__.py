"""Load generators and reports. They talk to a hub from outside, over HTTP and WebSocket, on this machine only."""
