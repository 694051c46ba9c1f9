"""Look at a machine from outside: doctor and self-test."""
