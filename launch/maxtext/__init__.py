"""MaxText: its command, settings, models and tokenizers, the end of its runs, and the checkpoints that they leave."""
