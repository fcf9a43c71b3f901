"""Campaigns that try to break a build, each one command, seeded; see docs/campaigns.md."""
