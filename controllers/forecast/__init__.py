"""`tidewise forecast`: reads a month of demand, publishes the next hour with quantiles that hold."""
