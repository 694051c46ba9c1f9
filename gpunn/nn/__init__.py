"""Build networks on a device from layers, losses and parameters."""
