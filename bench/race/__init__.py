"""What the comparisons in bench/ share: engines in child processes, interleaved pairs, roofs, tables and a picture."""
