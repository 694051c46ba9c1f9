"""The page of a run on 127.0.0.1: draw, and see what every layer answers; `gpunn serve`, the extra `web`."""
