"""The start of MaxText on built datasets: its mixture, its command, and the machines that run it."""
