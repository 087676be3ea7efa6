"""`tidewise scale`: reads demand, forecast, backlog and replicas; decides; sets the replicas, or only says so."""
