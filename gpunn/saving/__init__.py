"""Save and load networks and checkpoints as safetensors and JSON; nothing in a file is executed."""
