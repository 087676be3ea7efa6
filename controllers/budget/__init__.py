"""Money: a ledger that answers before it is spent, the levels that follow from it, and what it tells the scaler."""
