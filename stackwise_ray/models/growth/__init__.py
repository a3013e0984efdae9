"""How a model changes while it trains: blocks that enter, adapters, 4 bits, time as an input, a frozen prefix."""
