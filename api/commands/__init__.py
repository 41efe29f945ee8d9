"""Commands of `hub` that work on a store rather than on a running hub: one file for each group of them."""
