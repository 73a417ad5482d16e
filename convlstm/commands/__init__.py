"""The commands: each parses, calls, prints."""
