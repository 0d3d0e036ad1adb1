"""L8: the twin. The engine's own loop, cache bookkeeping and policies, under a virtual clock and a cost model."""
