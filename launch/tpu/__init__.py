"""Training on TPUs: slices of TPU VMs, clusters of GKE, and the consent to their cost."""
