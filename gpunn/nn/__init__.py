"""Networks: layers, losses, parameters, and how they are built on a device."""
