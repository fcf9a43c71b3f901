"""The HTML report on built datasets: its data, its charts, its page."""
