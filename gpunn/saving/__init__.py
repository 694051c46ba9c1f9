"""Files of networks and checkpoints: safetensors and JSON, nothing that could be executed."""
