"""Datasets that are grown from earlier ones (`build --grow`), through the whole command."""
