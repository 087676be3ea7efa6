"""`tidewise recovery`: mends what one instance at a time can be mended by, and calls people for the rest."""
