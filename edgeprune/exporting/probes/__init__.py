"""Models of one layer or two, built directly for a runtime, to be timed on a device."""
