"""Fair scheduling across clients: decisions only, with no clock and no I/O."""
