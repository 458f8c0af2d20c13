"""The main road: one configuration in, an adapted model, its index, figures and a report out."""
