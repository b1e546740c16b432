"""The product: the stages, what they stand on, and the command line over them."""
