"""Doors for services that start our jobs; today that of Dataflow's flex templates."""
