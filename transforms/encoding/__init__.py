"""Documents to ids: engines, the pool of encoders, `Tokenize`."""
