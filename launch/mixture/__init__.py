"""MaxText's mixture of built datasets: shares, weights and files, and how the mixing will go."""
