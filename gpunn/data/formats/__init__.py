"""File formats: images and arrays, read within bounds."""
