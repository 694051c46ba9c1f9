"""Read files of images, arrays and tables, none of which is trusted."""
