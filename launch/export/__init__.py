"""Export of a checkpoint to Hugging Face format, and the check of an exported model."""
