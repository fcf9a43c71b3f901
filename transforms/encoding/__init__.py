"""Documents to ids: two engines that agree, the pool of encoders, and `Tokenize`."""
