"""`edgewise serve`: HTTP in the main thread, every model's engine in a thread of its own."""
