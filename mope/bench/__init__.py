"""How long the hot paths take on this machine: numbers to report, never to test."""
