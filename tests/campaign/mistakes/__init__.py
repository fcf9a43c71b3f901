"""The mistakes campaign: what new users get wrong, what they are told, with which exit code, and how soon."""
