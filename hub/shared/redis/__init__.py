"""The home in Redis (or Valkey): one lane for commands, one connection that listens, a local copy to fall back on."""
