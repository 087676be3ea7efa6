"""`tidewise init`: a first configuration from what is there already."""
