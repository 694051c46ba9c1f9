"""The look of figures, and of tables as HTML, that every room above shows itself by."""
