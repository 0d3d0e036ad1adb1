"""L2: what a machine can compute. The only room that imports edgewise._native."""
