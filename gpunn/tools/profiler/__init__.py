"""Profile a step: its parts beside what the machine could do at its best."""
