"""Reusable Beam transforms, DoFns, CombineFns and encoders; nothing here knows of a job."""
