"""Hosts of their own on one machine: namespaces of Linux on a bridge."""
