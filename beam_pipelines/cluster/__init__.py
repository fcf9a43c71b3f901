"""A cluster of one's own: a job service, and hosts whose worker processes it hands to each job."""
