"""Layer 0, standard library only: errors, registries, quantities, named random streams, records."""
