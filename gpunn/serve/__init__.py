"""Serve the page of a run on 127.0.0.1: draw, and see every layer's output (`gpunn serve`, the extra `web`)."""
